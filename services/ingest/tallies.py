"""What receivers alone know for the delivery ledger: rejections, and duplicates that they answer by themselves.

Counted in memory and written to the log about once a second, whence it is in the ledger exactly once. A receiver that
is killed takes the last second of it along; one that is asked to stop does not.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from chassis import logs
from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.tasks import in_background
from services.ingest.records import Kind, Record, Tally

log = logs.get(__name__)

_SECONDS = 1.0
_HOUR_SECONDS = 3600.0
#: Names a project and hour that are not defined and have tallies of their own; what comes under further ones is counted
#: under none. They are whatever somebody sends, every hour anew, and each is kept for three months.
_MOST_UNDEFINED_NAMES = 200
_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:.-]{0,199}")
_LONGEST_EXAMPLE = 500
#: In a record, which a frame has room for.
_MOST_TOGETHER = 200

#: Tenant and project.
_Whose = tuple[bytes, bytes]
#: Metric name and code.
_What = tuple[str, str]


class Appending(Protocol):
    """Writes a record to the log, and returns when it is on disk. Raises LogUnavailable: it may be, or not."""

    async def append(self, record: Record) -> None: ...


@dataclass(slots=True)
class _Count:
    count: int = 0
    example: str = ""


class Tallies:
    """Counts of one receiver."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[_Whose, dict[_What, _Count]] = {}
        self._undefined_names: dict[_Whose, set[str]] = {}
        self._names_since = clock.monotonic()

    def rejected(self, whose: _Whose, name: str, code: str, message: str, *, defined: bool) -> None:
        """One metric was rejected; the name as it was sent, empty where it could not be read."""
        count = self._count(whose, name, code, defined=defined)
        count.count += 1
        count.example = message[:_LONGEST_EXAMPLE]

    def duplicate(self, whose: _Whose, name: str, *, defined: bool) -> None:
        """One metric was accepted, of a batch that is durable already; the name as it was sent this time."""
        self._count(whose, name, "", defined=defined).count += 1

    def _count(self, whose: _Whose, name: str, code: str, *, defined: bool) -> _Count:
        if not defined:
            name = self._undefined_name(whose, name)
        return self._counts.setdefault(whose, {}).setdefault((name, code), _Count())

    def _undefined_name(self, whose: _Whose, name: str) -> str:
        """Under which it is counted."""
        known = self._undefined_names.setdefault(whose, set())
        if name not in known:
            if len(known) >= _MOST_UNDEFINED_NAMES or not _NAME.fullmatch(name):
                return ""
            known.add(name)
        return name

    @asynccontextmanager
    async def told_to(self, log_: Appending) -> AsyncIterator[None]:
        """Writes them to the log while open, the last ones at the end."""
        async with in_background(self._tell_for_ever(log_)):
            yield
        await self._tell(log_)

    async def _tell_for_ever(self, log_: Appending) -> None:
        while True:
            await self._clock.sleep(_SECONDS)
            await self._tell(log_)
            if self._clock.monotonic() - self._names_since > _HOUR_SECONDS:
                self._undefined_names.clear()
                self._names_since = self._clock.monotonic()

    async def _tell(self, log_: Appending) -> None:
        """In records of a project each. What the log did not acknowledge is not told again: it might count twice."""
        counts, self._counts = self._counts, {}
        records = [record for whose, what in counts.items() for record in self._records(whose, what)]
        outcomes = await asyncio.gather(*(log_.append(record) for record in records), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Unavailable):
                log.warning("tallies of a second are lost to the ledger", reason=outcome.message)
            elif outcome is not None:
                raise outcome

    def _records(self, whose: _Whose, counts: dict[_What, _Count]) -> Iterator[Record]:
        tenant_id, project_id = whose
        tallies = [Tally(name, code, each.count, each.example) for (name, code), each in counts.items()]
        for first in range(0, len(tallies), _MOST_TOGETHER):
            yield Record(
                kind=Kind.TALLY,
                tenant_id=tenant_id,
                project_id=project_id,
                received_ms=self._clock.now_ms(),
                definitions=[],
                tallies=tallies[first : first + _MOST_TOGETHER],
            )
