"""Gets samples taken by a sink that keeps their times, such as a receiver of remote write.

What was once sent is sent again until it is accepted. A request that is refused is halved until the bad sample stands
alone; where the sink takes others, it is put aside. Its series is not sent for a while, then tried after all others.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from chassis import failpoints, logs
from chassis.clock import Clock
from services.ingest import metrics
from services.ingest.domain import MetricType
from services.ingest.samples import Samples
from services.ingest.sinks.attempts import Answer, Attempts, Send
from services.ingest.sinks.set_aside import SetAside

log = logs.get(__name__)

_MOST_SAMPLES_IN_REQUEST = 5_000
#: Of what was refused before and is again, with each write.
_MOST_HALVINGS = 50


@dataclass(frozen=True, slots=True)
class _Refused:
    """Samples that a sink refuses for good."""

    samples: Samples
    answer: Answer

    @property
    def is_repeated(self) -> bool:
        """Whether it is one native histogram older than what the sink has of the series, or the series' end once more:
        so Prometheus answers a request that it has taken before, and nothing is lost (`docs/histograms.md`)."""
        one = self.samples
        if len(one) > 1 or one.table.type[one.rows[0]] != MetricType.NATIVE_HISTOGRAM:
            return False
        text = self.answer.text
        return "out of order sample" in text or (bool(one.stale[0]) and "duplicate sample" in text)

    @property
    def said(self) -> Mapping[str, object]:
        """Of the first one, for the log."""
        one = self.samples.at(slice(1))
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
        #: The last sample that the sink took, in a request of its own.
        self._accepted: bytes | None = None
        self._set_aside = SetAside(clock)

    async def write(self, samples: Samples) -> None:
        ended = samples.rows[samples.stale]
        samples = self._without_too_old(samples)
        unsent, due = self._set_aside.of(samples)
        self._count("quarantined", samples.at(unsent))
        for request in _requests(samples.at(~unsent & ~due)):
            refused: list[_Refused] = []
            try:
                await self._deliver(request, request, refused)
            finally:
                self._tell(refused)
        if due.any():
            await self._try_again(samples.at(due))
        self._set_aside.forget(ended)

    def _without_too_old(self, samples: Samples) -> Samples:
        native = samples.table.type[samples.rows] == MetricType.NATIVE_HISTOGRAM
        most_ms = np.where(native, self._oldest_native_ms, self._oldest_ms)
        too_old = self._clock.now_ms() - samples.at_ms > most_ms
        if not too_old.any():
            return samples
        self._count("too_old", samples.at(too_old))
        lost = int(samples.widths[too_old].sum())
        log.error("samples are older than the sink takes, dropped", sink=self._sink.name, samples=lost)
        return samples.at(~too_old)

    async def _deliver(self, samples: Samples, request: Samples, refused: list[_Refused]) -> None:
        """Returns when each sample, of those of a request, was accepted or is among the refused ones."""
        refusal = await self._refusal(samples, request)
        if refusal is None:
            await self._delivered(samples)
        elif samples.exemplars:  # which are no reason to do without a sample
            await self._deliver(samples.with_exemplars({}), request, refused)
        elif len(samples) == 1:
            refused.append(self._put_aside(samples, refusal))
        else:
            half = len(samples) // 2
            await self._deliver(samples.at(slice(half)), request, refused)
            await self._deliver(samples.at(slice(half, None)), request, refused)

    async def _refusal(self, samples: Samples, request: Samples) -> Answer | None:
        """Only of one sample alone is it asked whether the sink refuses it or everything: several are halved anyway."""
        send = partial(self._sink.send, self._sink.encode(samples))
        if samples.exemplars or len(samples) > 1:
            return await self._attempts.first_refusal(send)
        return await self._attempts.refusal(send, self._probes(int(samples.rows[0]), request))

    async def _try_again(self, due: Samples) -> None:
        """Sends what was refused before. What is refused again is halved as well, but only so often: the rest is put
        aside again as it is, and begins elsewhere the next time."""
        refused: list[_Refused] = []
        waiting = list(_requests(_from_any_row(due.with_exemplars({}))))[::-1]
        halvings = 0
        while waiting:
            samples = waiting.pop()
            refusal = await self._attempts.first_refusal(partial(self._sink.send, self._sink.encode(samples)))
            if refusal is None:
                await self._delivered(samples)
            elif len(samples) == 1 or halvings == _MOST_HALVINGS:
                refused.append(self._put_aside(samples, refusal))
            else:
                halvings += 1
                half = len(samples) // 2
                waiting += (samples.at(slice(half, None)), samples.at(slice(half)))
        self._tell(refused)

    async def _delivered(self, samples: Samples) -> None:
        if failpoints.ARMED:
            await failpoints.reached("delivered")
        self._count("delivered", samples)
        self._set_aside.forget(samples.rows)
        self._accepted = self._sink.encode(samples.at(slice(-1, None)).with_exemplars({}))

    def _probes(self, row: int, request: Samples) -> list[Send]:
        """Requests that a sink may take although it refuses a sample of that row: what it took last; a series that is
        there for this alone; and, since one that takes no new series may know neither, any other row of the request."""
        probes: list[Send] = [self._probe]
        if self._accepted is not None:
            probes.insert(0, partial(self._sink.send, self._accepted))
        if (others := np.flatnonzero(request.rows != row)).size:
            probes.append(partial(self._send_any, request.at(others)))
        return probes

    async def _probe(self) -> Answer:
        return await self._sink.send(self._sink.encode_probe(self._clock.now_ms()))

    async def _send_any(self, samples: Samples) -> Answer:
        row = random.choice(samples.rows)  # noqa: S311
        first = np.flatnonzero(samples.rows == row)[:1]  # what follows an earlier one may not come before it
        return await self._sink.send(self._sink.encode(samples.at(first).with_exemplars({})))

    def _put_aside(self, samples: Samples, refusal: Answer) -> _Refused:
        self._count("quarantined", samples)
        refused = _Refused(samples, refusal)
        if not refused.is_repeated:
            self._set_aside.put(samples.rows)
        return refused

    def _count(self, outcome: str, samples: Samples) -> None:
        metrics.SINK_SAMPLES.labels(self._sink.name, outcome).inc(int(samples.widths.sum()))

    def _tell(self, refused: Sequence[_Refused]) -> None:
        """Tells the log what was put aside: a line for samples that are lost, and one for those that are not."""
        if told := [each for each in refused if each.is_repeated]:
            log.info("native histograms put aside", sink=self._sink.name, samples=len(told), first=told[0].said)
        if lost := [each for each in refused if not each.is_repeated]:
            count = sum(len(each.samples) for each in lost)
            log.error("samples put aside", sink=self._sink.name, samples=count, first=lost[0].said)


def _from_any_row(samples: Samples) -> Samples:
    """The same in an order of rows that begins anywhere, each row's samples in theirs."""
    first = random.choice(samples.rows)  # noqa: S311
    return samples.at(np.argsort((samples.rows - first) % samples.table.size, kind="stable"))


def _requests(samples: Samples) -> Iterator[Samples]:
    """In order, as many together as a request may have."""
    ends = samples.widths.cumsum()
    first = 0
    while first < len(samples):
        sent = ends[first - 1] if first else 0
        after = int(np.searchsorted(ends, sent + _MOST_SAMPLES_IN_REQUEST)) + 1
        yield samples.at(slice(first, after))
        first = after
