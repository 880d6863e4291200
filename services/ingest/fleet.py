"""The aggregators that share the lanes, and how many of them this one takes."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, Protocol

from chassis import logs
from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.tasks import heed_cancellation, in_background
from services.ingest import clock_check
from services.ingest.errors import UnreadableLogError

log = logs.get(__name__)

_ATTEND_SECONDS = 1.0


class Others(NamedTuple):
    """How many other aggregators live: those whose clocks are right, and those whose clocks are late."""

    right: int
    late: int


class Attendance(Protocol):
    """Where aggregators tell each other that they live, and lanes are leased. Every method raises Unavailable."""

    async def now_ms(self) -> int:
        """The time by the clock that all of them share, Unix milliseconds."""
        ...

    async def attend(self, owner: str, lanes: int, lease_seconds: float, *, late: bool) -> Others:
        """Says that `owner` lives, for so long, and whether its clock is late.

        Raises UnreadableLogError where there is another number of lanes: who cannot work does not share.
        """
        ...

    async def leave(self, owner: str) -> None:
        """Says that `owner` is gone."""
        ...

    async def acquire(self, lane: int, lanes: int, owner: str, lease_seconds: float) -> int | None:
        """The epoch under which `owner` has the lane from now on; None while somebody else has it. Raises
        UnreadableLogError where there is another number of lanes."""
        ...


class Fleet:
    """This aggregator's part of the lanes: as many as the others have, rounded up.

    It says only how many lanes are wanted. That a lane has one owner is a matter of leases and epochs.
    """

    def __init__(self, attendance: Attendance, clock: Clock, *, lanes: int, lease_seconds: float) -> None:
        self._attendance = attendance
        self._clock = clock
        self._lanes = lanes
        self._lease_seconds = lease_seconds
        self._owner = str(uuid.uuid4())
        #: None: it has not attended yet.
        self._share: int | None = None
        self._late = False
        self._owned: set[int] = set()
        self._taking = asyncio.Lock()

    @asynccontextmanager
    async def attending(self) -> AsyncIterator[None]:
        """One of the fleet while open."""
        async with in_background(self._attend_for_ever()):
            try:
                yield
            finally:
                with suppress(Unavailable):  # then the others find out when its time is up
                    await self._attendance.leave(self._owner)

    async def _attend_for_ever(self) -> None:
        while True:
            with suppress(Unavailable, UnreadableLogError):  # lanes, and the probe of the clock, say what is amiss
                await self._attend()
            heed_cancellation()
            await self._clock.sleep(min(self._lease_seconds / 3, _ATTEND_SECONDS))

    async def _attend(self) -> None:
        """One whose clock is far behind leaves the lanes to others with right clocks. Where there are none, samples
        that are late are better than none: Postgres' clock, too, may be the one that is wrong."""
        await self._check_clock()
        others = await self._attendance.attend(self._owner, self._lanes, self._lease_seconds, late=self._late)
        sharing = 1 + (others.late if self._late else others.right)
        share = 0 if self._late and others.right else -(-self._lanes // sharing)
        if share != self._share:
            log.info("lanes are shared", aggregators=1 + sum(others), late=self._late, lanes=self._lanes, share=share)
        self._share = share

    async def _check_clock(self) -> None:
        """Notes whether this machine's clock is far behind. Raises Unavailable where it is ahead: commits never go back
        in time, so that the first one from the future would hide all values until then, those of later owners too."""
        ahead_seconds = await clock_check.seconds_ahead(self._clock, self._attendance.now_ms)
        if ahead_seconds > clock_check.MOST_AHEAD_SECONDS:
            raise Unavailable(clock_check.told(ahead_seconds))
        late_from = clock_check.RIGHT_AGAIN_BEHIND_SECONDS if self._late else clock_check.MOST_BEHIND_SECONDS
        self._late = ahead_seconds < -late_from

    async def probe_clock(self) -> None:
        """A health check; see `clock_check.probe`."""
        await clock_check.probe(self._clock, self._attendance.now_ms)

    async def take(self, lane: int) -> int | None:
        """The epoch under which this aggregator has the lane from now on.

        None while another one has it or should have it. Raises Unavailable, also where this machine's clock is ahead,
        and UnreadableLogError where there is another number of lanes.
        """
        async with self._taking:
            if self._share is None:
                await self._attend()
            if len(self._owned) >= (self._share or 0):
                return None
            await self._check_clock()
            epoch = await self._attendance.acquire(lane, self._lanes, self._owner, self._lease_seconds)
            if epoch is not None:
                self._owned.add(lane)
            return epoch

    def gave_back(self, lane: int) -> None:
        """This aggregator does not work on the lane any more."""
        self._owned.discard(lane)

    def wanted_elsewhere(self, lane: int) -> bool:
        """Whether this aggregator has more than its part and this is the lane to give away: one after the other."""
        return len(self._owned) > (self._share or 0) and lane == max(self._owned)
