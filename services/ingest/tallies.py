"""What receivers alone know for the delivery ledger: rejections, and duplicates that they answer by themselves.

Counted in memory and written to the log about once a second, whence it is in the ledger exactly once. A receiver that
is killed takes the last second of it along; one that is asked to stop does not.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
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
#: Names a project and hour that have tallies of their own; what comes under further ones is counted under none. Names
#: that are not defined are whatever somebody sends, every hour anew, and each is kept for three months.
_MOST_NAMES = 1_000
_MOST_UNDEFINED_NAMES = 200
_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:.-]{0,199}")
_LONGEST_EXAMPLE = 500

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
        #: Those that are defined, and those that are not.
        self._names: dict[tuple[_Whose, bool], set[str]] = {}
        self._names_since = clock.monotonic()

    def rejected(self, whose: _Whose, name: str, code: str, message: str, *, defined: bool) -> None:
        """One metric was rejected; the name as it was sent, empty where it could not be read."""
        count = self._count(whose, name, code, defined=defined)
        count.count += 1
        count.example = message[:_LONGEST_EXAMPLE]

    def duplicate(self, whose: _Whose, names: Iterable[str]) -> None:
        """These metrics were accepted, of a batch that is durable already."""
        for name in names:
            self._count(whose, name, "", defined=True).count += 1

    def _count(self, whose: _Whose, name: str, code: str, *, defined: bool) -> _Count:
        counts = self._counts.setdefault(whose, {})
        known = self._names.setdefault((whose, defined), set())
        if name not in known:
            if len(known) < (_MOST_NAMES if defined else _MOST_UNDEFINED_NAMES) and _NAME.fullmatch(name):
                known.add(name)
            else:
                name = ""
        return counts.setdefault((name, code), _Count())

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
                self._names.clear()
                self._names_since = self._clock.monotonic()

    async def _tell(self, log_: Appending) -> None:
        """One record a project. What the log did not acknowledge is not told again: it might count twice."""
        counts, self._counts = self._counts, {}
        records = [self._record(whose, what) for whose, what in counts.items()]
        outcomes = await asyncio.gather(*(log_.append(record) for record in records), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Unavailable):
                log.warning("tallies of a second are lost to the ledger", reason=outcome.message)
            elif outcome is not None:
                raise outcome

    def _record(self, whose: _Whose, counts: dict[_What, _Count]) -> Record:
        tenant_id, project_id = whose
        return Record(
            kind=Kind.TALLY,
            tenant_id=tenant_id,
            project_id=project_id,
            received_ms=self._clock.now_ms(),
            definitions=[],
            tallies=[Tally(name, code, each.count, each.example) for (name, code), each in counts.items()],
        )
