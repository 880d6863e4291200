"""Sending, reading back and comparing."""

import asyncio
from collections.abc import Awaitable, Callable

from chassis import logs
from chassis.clock import Clock
from chassis.errors import Unavailable
from services.canary import metrics
from services.canary.clients import Gateway
from services.canary.domain import Book, Comparison, Verdict
from services.canary.storage import BookFile

log = logs.get(__name__)

#: Batches differ, so that one that is lost does not look like another that is late.
_MOST_UNITS = 7


class Canary:
    """One run, on a gateway and a file."""

    def __init__(
        self, gateway: Gateway, file: BookFile, clock: Clock, *, interval_seconds: float, patience_seconds: float
    ) -> None:
        self._gateway = gateway
        self._file = file
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._comparison = Comparison(patience_seconds)
        self._book = file.read()
        self._trouble = {"send": "", "query": ""}
        self._comparison.accepted(self._book.accepted, clock.monotonic())
        #: Of the last comparison; None: there was none yet.
        self.verdict: Verdict | None = None

    @property
    def book(self) -> Book:
        """What was sent until now."""
        return self._book

    async def send_for_ever(self) -> None:
        """A batch an interval; one that was not accepted is sent again, and no other before it."""
        while True:
            await self._step("send", self._send)
            await self._clock.sleep(self._interval_seconds)

    async def compare_for_ever(self) -> None:
        """A comparison an interval."""
        while True:
            await self._step("query", self._compare)
            await self._clock.sleep(self._interval_seconds)

    async def probe_sending(self) -> None:
        """A health check."""
        self._raise_trouble("send")

    async def probe_comparing(self) -> None:
        """A health check."""
        self._raise_trouble("query")

    def _raise_trouble(self, what: str) -> None:
        if self._trouble[what]:
            raise Unavailable(self._trouble[what])

    async def _step(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        """Does the step; what keeps it from being done is told once, and in readiness as long as it lasts."""
        try:
            await step()
            trouble = ""
        except Unavailable as error:
            trouble = error.message
        if bool(trouble) != bool(self._trouble[what]):
            log.info("trouble changed", step=what, trouble=trouble)
        self._trouble[what] = trouble

    async def _send(self) -> None:
        if not self._book.pending:
            # Written first: after a crash nobody else knows that the batch may have been counted.
            await self._keep(self._book.begun(1 + self._book.sequence % _MOST_UNITS))
        await self._gateway.send(self._book.run, self._book.sequence, self._book.pending)
        metrics.SENT.inc(self._book.pending)
        settled = self._book.settled()
        self._comparison.accepted(settled.accepted, self._clock.monotonic())
        await self._keep(settled)

    async def _keep(self, book: Book) -> None:
        await asyncio.to_thread(self._file.write, book)
        self._book = book

    async def _compare(self) -> None:
        seen = await self._gateway.seen(self._book.run)
        verdict = self._comparison.judge(self._book, seen, self._clock.monotonic())
        for seconds in verdict.visible_seconds:
            metrics.VISIBILITY.observe(seconds)
        metrics.SEEN.set(seen)
        metrics.LOST.set(verdict.lost)
        metrics.DOUBLE.set(verdict.double)
        metrics.COMPARED.set(self._clock.now_ms() / 1000)
        if verdict.lost or verdict.double:
            log.error("the count is wrong", run=self._book.run, seen=seen, lost=verdict.lost, double=verdict.double)
        self.verdict = verdict
