"""Delivers committed values to one sink, in order, until it has them; knows up to which commit it has.

What was once sent is sent again byte for byte until it is accepted; what was never sent may be coalesced to one sample
a series every 15 s. A request that is refused for good is halved until the bad sample stands alone and is put aside.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tenacity

from chassis import failpoints, logs
from chassis.breakers import Breaker
from chassis.clock import Clock
from chassis.errors import Unavailable
from services.ingest import metrics
from services.ingest.samples import Samples
from services.ingest.sinks.remote_write import Answer

log = logs.get(__name__)

_MOST_SAMPLES_IN_REQUEST = 5_000
#: In an outage one sample a series is kept for each of these.
_COALESCED_MS = 15_000
#: So many commits may wait before they are coalesced.
_BEHIND = 5
_SLOWEST_RETRY_SECONDS = 5.0
#: The longest pause that a sink may ask for.
_LONGEST_PAUSE_SECONDS = 60.0


class Sink(Protocol):
    """A receiver of samples."""

    @property
    def name(self) -> str: ...
    def encode(self, samples: Samples) -> bytes: ...
    def encode_probe(self, at_ms: int) -> bytes: ...
    async def send(self, body: bytes) -> Answer: ...


@dataclass
class _Entry:
    """The samples of one commit, or of several that were coalesced."""

    commit_ms: int
    #: Written with the time of a commit: only the newest of a series counts.
    ordinary: Samples
    #: With a time of their own, first zeros and stale markers: all of them count.
    special: Samples

    def __len__(self) -> int:
        return len(self.ordinary) + len(self.special)

    def absorb(self, later: "_Entry") -> None:
        table = self.ordinary.table
        self.commit_ms = later.commit_ms
        self.ordinary = Samples.joined(table, (self.ordinary, later.ordinary)).latest()
        self.special = Samples.joined(table, (self.special, later.special))

    def in_time(self) -> Samples:
        """All of them by time, so that each series' samples are in order."""
        return Samples.joined(self.ordinary.table, (self.special, self.ordinary)).in_time()


class _TryAgainError(Exception):
    """The sink did not take a request for a reason that may pass."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} {answer.text}")
        self.pause_seconds = min(answer.retry_after_seconds or 0.0, _LONGEST_PAUSE_SECONDS)


class Delivery:
    """One lane's way to one sink."""

    def __init__(self, sink: Sink, clock: Clock, *, delivered_ms: int, oldest_ms: int, most_pending: int) -> None:
        self._sink = sink
        self._clock = clock
        #: Every commit up to here is delivered.
        self.delivered_ms = delivered_ms
        self._oldest_ms = oldest_ms
        self._most_pending = most_pending
        self._entries: deque[_Entry] = deque()
        #: The one that is being delivered: what was sent of it must not change any more.
        self._under_way: _Entry | None = None
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._breaker = Breaker(f"sink {sink.name}", reset_seconds=2.0, least_calls=10)

    @property
    def sink_name(self) -> str:
        return self._sink.name

    def offer(self, commit_ms: int, samples: Samples) -> None:
        """Takes what a commit made deliverable; it never waits."""
        ordinary = samples.at_ms == commit_ms
        self._entries.append(_Entry(commit_ms, samples.at(ordinary), samples.at(~ordinary)))
        if len(self._entries) > _BEHIND:
            self._coalesce()
        self._count()
        self._idle.clear()
        self._arrived.set()

    def _coalesce(self) -> None:
        last = self._entries.pop()
        before = self._entries[-1]
        if before.commit_ms // _COALESCED_MS == last.commit_ms // _COALESCED_MS:
            before.absorb(last)
        else:
            self._entries.append(last)
        while len(self._entries) > 1 and self._total() > self._most_pending:
            oldest = self._entries.popleft()
            oldest.absorb(self._entries.popleft())
            self._entries.appendleft(oldest)
            log.warning("outage is long: older samples are coalesced further", sink=self._sink.name)

    def _total(self) -> int:
        return sum(map(len, self._entries))

    def _count(self) -> None:
        pending = [*([self._under_way] if self._under_way else []), *self._entries]
        metrics.SINK_PENDING.labels(self._sink.name).set(sum(map(len, pending)))
        oldest_ms = pending[0].commit_ms if pending else self._clock.now_ms()
        metrics.SINK_DELAY.labels(self._sink.name).set(max(0, self._clock.now_ms() - oldest_ms) / 1000)

    async def run(self) -> None:
        """Delivers for ever."""
        while True:
            await self._arrived.wait()
            entry = self._under_way = self._entries.popleft()
            await self._deliver_entry(entry)
            self.delivered_ms, self._under_way = entry.commit_ms, None
            self._count()
            if not self._entries:
                self._arrived.clear()
                self._idle.set()

    async def flushed(self, within_seconds: float) -> bool:
        """Whether everything offered was delivered in that time."""
        try:
            async with asyncio.timeout(within_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _deliver_entry(self, entry: _Entry) -> None:
        samples = self._without_too_old(entry.in_time())
        ends = samples.widths.cumsum()
        first = 0
        while first < len(samples):
            sent = ends[first - 1] if first else 0
            after = int(np.searchsorted(ends, sent + _MOST_SAMPLES_IN_REQUEST)) + 1
            await self._deliver(samples.at(slice(first, after)))
            first = after

    def _without_too_old(self, samples: Samples) -> Samples:
        first = int(np.searchsorted(samples.at_ms, self._clock.now_ms() - self._oldest_ms))
        if first:
            lost = int(samples.widths[:first].sum())
            metrics.SINK_SAMPLES.labels(self._sink.name, "too_old").inc(lost)
            log.error("samples are older than the sink takes, dropped", sink=self._sink.name, samples=lost)
        return samples.at(slice(first, None))

    async def _deliver(self, samples: Samples) -> None:
        """Returns when each sample was accepted or put aside."""
        refusal = await self._refusal(self._sink.encode(samples))
        if refusal is None:
            if failpoints.ARMED:
                await failpoints.reached("delivered")
            metrics.SINK_SAMPLES.labels(self._sink.name, "delivered").inc(int(samples.widths.sum()))
        elif len(samples) == 1:
            self._put_aside(samples, refusal)
        else:
            half = len(samples) // 2
            await self._deliver(samples.at(slice(half)))
            await self._deliver(samples.at(slice(half, None)))

    async def _refusal(self, body: bytes) -> Answer | None:
        """None once the body is accepted; else the answer that refuses it although the sink takes others."""
        suspected = False
        while (refusal := await self._send(body)) is not None:
            if not await self._works():
                log.error("sink refuses everything", sink=self._sink.name, status=refusal.status, text=refusal.text)
                await self._clock.sleep(_SLOWEST_RETRY_SECONDS)
            elif refusal.status < 500 or suspected:
                return refusal
            else:
                suspected = True  # the sink may have come back just now: a 500 must be seen once more
        return None

    async def _works(self) -> bool:
        return await self._send(self._sink.encode_probe(self._clock.now_ms())) is None

    def _put_aside(self, one: Samples, refusal: Answer) -> None:
        metrics.SINK_SAMPLES.labels(self._sink.name, "quarantined").inc(int(one.widths[0]))
        log.error(
            "sample put aside",
            sink=self._sink.name,
            series=one.table.families[one.table.family[one.rows[0]]].name,
            series_id=one.table.ids(one.rows).joined().hex(),
            at_ms=int(one.at_ms[0]),
            status=refusal.status,
            text=refusal.text,
        )

    async def _send(self, body: bytes) -> Answer | None:
        """None once the body is accepted, or the answer that refuses it for good. Tries until there is either."""
        last: Answer | None = None
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type((_TryAgainError, Unavailable)),
            wait=_pause,
            sleep=self._clock.sleep,
            stop=tenacity.stop_never,
        ):
            with attempt, self._breaker.guarded():
                answer = await self._sink.send(body)
                metrics.SINK_REQUESTS.labels(self._sink.name, str(answer.status or answer.text)).inc()
                if 200 <= answer.status < 300:
                    return None
                if 400 <= answer.status < 500 and answer.status != 429:
                    return answer
                if answer.status == 500 and answer == last:
                    return answer
                last = answer
                raise _TryAgainError(answer)
        return last


_backoff = tenacity.wait_random_exponential(multiplier=0.1, max=_SLOWEST_RETRY_SECONDS)


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next attempt: jittered and growing, or what the sink asks for."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.pause_seconds if isinstance(error, _TryAgainError) else 0.0
    return max(asked, _backoff(state))
