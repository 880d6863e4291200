"""Gets samples taken by a sink that keeps their times, such as a receiver of remote write.

What was once sent is sent again byte for byte until it is accepted. A request that is refused for good is halved until
the bad sample stands alone and is put aside.
"""

from typing import Protocol

import numpy as np

from chassis import failpoints, logs
from chassis.clock import Clock
from services.ingest import metrics
from services.ingest.domain import MetricType
from services.ingest.samples import Samples
from services.ingest.sinks.attempts import Answer, Attempts

log = logs.get(__name__)

_MOST_SAMPLES_IN_REQUEST = 5_000


class SamplesSink(Protocol):
    """A receiver of samples."""

    @property
    def name(self) -> str: ...
    def encode(self, samples: Samples) -> bytes: ...
    def encode_probe(self, at_ms: int) -> bytes: ...
    async def send(self, body: bytes) -> Answer: ...


class SamplesWriter:
    """See `delivery.Writer`. Samples older than `oldest_ms`, native histograms older than `oldest_native_ms`, are
    dropped: the sink would refuse them."""

    keeps_history = True

    def __init__(self, sink: SamplesSink, lane: int, clock: Clock, *, oldest_ms: int, oldest_native_ms: int) -> None:
        self._sink = sink
        self._clock = clock
        self._oldest_ms = oldest_ms
        self._oldest_native_ms = oldest_native_ms
        self._attempts = Attempts(sink.name, lane, clock)

    async def write(self, samples: Samples) -> None:
        samples = self._without_too_old(samples)
        ends = samples.widths.cumsum()
        first = 0
        while first < len(samples):
            sent = ends[first - 1] if first else 0
            after = int(np.searchsorted(ends, sent + _MOST_SAMPLES_IN_REQUEST)) + 1
            await self._deliver(samples.at(slice(first, after)))
            first = after

    def _without_too_old(self, samples: Samples) -> Samples:
        native = samples.table.type[samples.rows] == MetricType.NATIVE_HISTOGRAM
        most_ms = np.where(native, self._oldest_native_ms, self._oldest_ms)
        too_old = self._clock.now_ms() - samples.at_ms > most_ms
        if not too_old.any():
            return samples
        lost = int(samples.widths[too_old].sum())
        metrics.SINK_SAMPLES.labels(self._sink.name, "too_old").inc(lost)
        log.error("samples are older than the sink takes, dropped", sink=self._sink.name, samples=lost)
        return samples.at(~too_old)

    async def _deliver(self, samples: Samples) -> None:
        """Returns when each sample was accepted or put aside."""
        body = self._sink.encode(samples)
        refusal = await self._attempts.refusal(lambda: self._sink.send(body), self._probe)
        if refusal is None:
            if failpoints.ARMED:
                await failpoints.reached("delivered")
            metrics.SINK_SAMPLES.labels(self._sink.name, "delivered").inc(int(samples.widths.sum()))
        elif samples.exemplars:  # which are no reason to do without a sample
            await self._deliver(samples.with_exemplars({}))
        elif len(samples) == 1:
            self._put_aside(samples, refusal)
        else:
            half = len(samples) // 2
            await self._deliver(samples.at(slice(half)))
            await self._deliver(samples.at(slice(half, None)))

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

    async def _probe(self) -> Answer:
        return await self._sink.send(self._sink.encode_probe(self._clock.now_ms()))
