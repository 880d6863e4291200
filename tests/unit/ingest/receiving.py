"""A receiver whose frames stay in memory: all that it does but for the log."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from chassis.clock import Clock, SystemClock
from chassis.principals import Principal
from chassis.tasks import in_background
from services.ingest.admission import Admission
from services.ingest.auto_definition import AutoDefinition
from services.ingest.definitions import DefinitionTable
from services.ingest.domain import Definition
from services.ingest.log_writer import LaneWriters, LogWriter, Queued
from services.ingest.operations.batches import Receiver
from services.ingest.operations.endings import SeriesEndings
from services.ingest.tallies import Tallies
from tests.unit.ingest.ingestion import NOW_MS, PROJECT, TENANT
from tests.unit.ingest.test_definitions import ScriptedConfig, living
from tests.waiting import eventually


class StoppedClock(SystemClock):
    def now_ms(self) -> int:
        return NOW_MS


@asynccontextmanager
async def receiver_of(
    definitions: Sequence[Definition], *, tallies: Tallies | None = None, clock: Clock | None = None
) -> AsyncIterator[tuple[Receiver, ScriptedConfig]]:
    """It follows the definitions as config tells them."""
    clock, config = clock or StoppedClock(), ScriptedConfig()
    table = DefinitionTable(config, clock, SeriesEndings(clock))
    config.tell(1, *map(living, definitions), snapshot=True)
    nobody = cast("Any", None)  # nothing is defined by data, and the log is not reached
    writers = LaneWriters([LogWriter(nobody, 0, Queued(1 << 30), timeout_seconds=600)])
    automatic = AutoDefinition(nobody, table, clock)

    async def loaded() -> bool:
        return table.loaded

    async with in_background(table.follow()):
        await eventually(loaded, what="the definitions are known")
        yield (
            Receiver(table, automatic, writers, tallies or Tallies(clock), Admission(None, table, clock), clock),
            config,
        )


def a_sender() -> Principal:
    return Principal(
        subject="key",
        kind="secret",
        scopes=frozenset({"ingest:write"}),
        expires_at=1e12,
        tenant_id=str(uuid.UUID(bytes=TENANT)),
        project_id=str(uuid.UUID(bytes=PROJECT)),
    )
