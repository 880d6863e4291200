"""The canary on the running suite: right through kills and its own restart, and loud when it is lied to."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local.layout import Ports
from services.canary.app import running
from services.canary.clients import METRIC
from services.canary.domain import Book
from services.canary.operations import Canary
from tests.e2e.api import Project
from tests.e2e.flying_canary import lying, settings_for
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def port(port_blocks: Callable[[], Ports]) -> int:
    return port_blocks().public


def _accepted(book: Book) -> int:
    return book.flying.accepted + book.resting.accepted


async def _all_seen(canary: Canary, at_least: int) -> None:
    async def seen() -> bool:
        verdict = canary.verdict
        assert verdict is None or not (verdict.lost or verdict.double), verdict
        return verdict is not None and _accepted(canary.book) >= at_least

    await eventually(seen, within_seconds=60, what=f"{at_least} units are accepted")


async def test_it_finds_nothing_wrong_while_processes_are_killed_and_it_is_restarted(
    suite: Suite, project: Project, tmp_path: Path, port: int
) -> None:
    await project.define(METRIC, labels=[{"name": "run", "required": True}])
    settings = settings_for(project, tmp_path / "canary.json", port)
    async with running(settings) as canary:
        await _all_seen(canary, 20)
        for name in ("aggregator", "receiver", "gateway"):
            pid = suite.kill(name)
            await asyncio.to_thread(suite.wait_restarted, name, pid)
        await _all_seen(canary, _accepted(canary.book) + 20)
        before = canary.book
    async with running(settings) as canary:
        assert canary.book.flying.id == before.flying.id
        await _all_seen(canary, _accepted(before) + 20)
    # It may have ended before the last batch was taken, or after that and before the answer.
    accepted = _accepted(canary.book)
    await project.shows(f"sum({METRIC})", accepted, accepted + canary.book.flying.pending)


@pytest.mark.parametrize("repeat", [False, True], ids=["lost", "double"])
async def test_it_notices_what_is_lost_and_what_is_double(
    suite: Suite, project: Project, tmp_path: Path, port: int, repeat: bool
) -> None:
    await project.define(METRIC, labels=[{"name": "run", "required": True}])
    async with (
        lying(project, port, repeat=repeat) as url,
        running(settings_for(project, tmp_path / "canary.json", port + 1, url)) as canary,
    ):

        async def noticed() -> bool:
            verdict = canary.verdict
            return verdict is not None and bool(verdict.double if repeat else verdict.lost)

        await eventually(noticed, within_seconds=40, what="the canary notices")
        assert canary.verdict is not None
        assert not (canary.verdict.lost if repeat else canary.verdict.double)
