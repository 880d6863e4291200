"""Gets samples taken by a sink that keeps their times, such as a receiver of remote write.

What was once sent is sent again byte for byte until it is accepted. A request that is refused for good is halved until
the bad sample stands alone and is put aside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class _Refused:
    """One sample that a sink refuses for good."""

    one: Samples
    answer: Answer

    @property
    def is_repeated(self) -> bool:
        """Whether it is a native histogram older than what the sink has of the series, or the series' end once more: so
        Prometheus answers a request that it has taken before, and nothing is lost (`docs/histograms.md`)."""
        if self.one.table.type[self.one.rows[0]] != MetricType.NATIVE_HISTOGRAM:
            return False
        text = self.answer.text
        return "out of order sample" in text or (bool(self.one.stale[0]) and "duplicate sample" in text)

    @property
    def said(self) -> Mapping[str, object]:
        """For the log."""
        one = self.one
        return {
            "series": one.table.families[one.table.family[one.rows[0]]].name,
            "series_id": one.table.ids(one.rows).joined().hex(),
            "at_ms": int(one.at_ms[0]),
            "status": self.answer.status,
            "text": self.answer.text,
        }


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
            refused: list[_Refused] = []
            try:
                await self._deliver(samples.at(slice(first, after)), refused)
            finally:
                self._put_aside(refused)
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

    async def _deliver(self, samples: Samples, refused: list[_Refused]) -> None:
        """Returns when each sample was accepted or is among the refused ones."""
        body = self._sink.encode(samples)
        refusal = await self._attempts.refusal(lambda: self._sink.send(body), self._probe)
        if refusal is None:
            if failpoints.ARMED:
                await failpoints.reached("delivered")
            metrics.SINK_SAMPLES.labels(self._sink.name, "delivered").inc(int(samples.widths.sum()))
        elif samples.exemplars:  # which are no reason to do without a sample
            await self._deliver(samples.with_exemplars({}), refused)
        elif len(samples) == 1:
            metrics.SINK_SAMPLES.labels(self._sink.name, "quarantined").inc(int(samples.widths[0]))
            refused.append(_Refused(samples, refusal))
        else:
            half = len(samples) // 2
            await self._deliver(samples.at(slice(half)), refused)
            await self._deliver(samples.at(slice(half, None)), refused)

    def _put_aside(self, refused: Sequence[_Refused]) -> None:
        """Tells the log of one request's samples: a line for those that are lost, and one for those that are not."""
        if told := [each for each in refused if each.is_repeated]:
            log.info("native histograms put aside", sink=self._sink.name, samples=len(told), first=told[0].said)
        if lost := [each for each in refused if not each.is_repeated]:
            log.error("samples put aside", sink=self._sink.name, samples=len(lost), first=lost[0].said)

    async def _probe(self) -> Answer:
        return await self._sink.send(self._sink.encode_probe(self._clock.now_ms()))
