"""Sending, reading back and comparing."""

import asyncio
from collections.abc import Awaitable, Callable

from chassis import logs
from chassis.clock import Clock
from chassis.errors import Unavailable
from services.canary import metrics
from services.canary.clients import Gateway
from services.canary.domain import Book, Verdict, Visibility, judged
from services.canary.storage import BookFile

log = logs.get(__name__)

#: Batches differ, so that one that is lost does not look like another that is late.
_MOST_UNITS = 7


class Canary:
    """One book, on a gateway and a file."""

    def __init__(
        self, gateway: Gateway, file: BookFile, clock: Clock, *, interval_seconds: float, patience_seconds: float
    ) -> None:
        self._gateway = gateway
        self._file = file
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._patience_seconds = patience_seconds
        self._visibility = Visibility(patience_seconds)
        self._book = file.read()
        self._trouble = {"send": "", "query": ""}
        self._wrong = (0, 0)
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
        if not self._book.flying.pending:
            book = self._turned()
            # Written first: after a crash nobody else knows that the batch may have been counted.
            await self._keep(book.begun(1 + book.flying.sequence % _MOST_UNITS))
        flying = self._book.flying
        await self._gateway.send(flying.id, flying.sequence, flying.pending)
        metrics.SENT.inc(flying.pending)
        settled = self._book.settled()
        self._visibility.accepted(settled.flying, self._clock.monotonic())
        await self._keep(settled)

    def _turned(self) -> Book:
        """The book, in which the runs take turns once the resting one was compared after all of it must be there."""
        rested = self.verdict.rested if self.verdict else None
        if rested is None or rested.id != self._book.resting.id:
            return self._book
        return self._book.turned(rested, self._clock.now_ms())

    async def _keep(self, book: Book) -> None:
        writing = asyncio.ensure_future(asyncio.to_thread(self._file.write, book))
        try:
            await asyncio.shield(writing)
        finally:
            # A thread cannot be cancelled: who opens the file next must not meet a write that is still under way.
            await asyncio.wait([writing])
        self._book = book

    async def _compare(self) -> None:
        asked_ms = self._clock.now_ms()
        seen = await self._gateway.seen(self._book.flying.id, self._book.resting.id)
        # The book as it is now: what was sent meanwhile may be in the answer.
        rested = asked_ms - self._book.resting_since_ms > self._patience_seconds * 1000
        verdict = judged(self._book, seen, rested=rested)
        for seconds in self._visibility.seconds(seen, self._clock.monotonic()):
            metrics.VISIBILITY.observe(seconds)
        metrics.SEEN.set(sum(seen.values()))
        metrics.LOST.set(verdict.lost)
        metrics.DOUBLE.set(verdict.double)
        metrics.COMPARED.set(self._clock.now_ms() / 1000)
        if (wrong := (verdict.lost, verdict.double)) != self._wrong:
            log.error("what is wrong with the count has changed", lost=verdict.lost, double=verdict.double)
        self._wrong = wrong
        self.verdict = verdict
