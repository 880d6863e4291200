"""Delivery to one sink that is scripted: nothing is lost, nothing is out of order, one bad sample harms no other."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from prometheus_client import REGISTRY

from services.ingest.domain import MetricType
from services.ingest.exemplars import Exemplar, Span
from services.ingest.samples import Samples
from services.ingest.sinks import samples_writer
from services.ingest.sinks.attempts import Answer
from services.ingest.sinks.backlog import Backlog
from services.ingest.sinks.delivery import Deliveries, Delivery
from services.ingest.sinks.remote_write import RemoteWrite
from tests.captured_logs import logged_by
from tests.unit.ingest.ingestion import DAY_MS, NOW_MS, definition, delta, ended, label, record
from tests.unit.ingest.lane_store import Rows, Store
from tests.unit.ingest.remote_write_schema import STALE_BITS, bits, read, read_exemplars, read_histograms
from tests.waiting import eventually

Sample = tuple[str, float, int]
"""Name and `plan`, value, Unix milliseconds."""

ACCEPTED = Answer(204, "")
ORDERS = definition("orders_total")
SERIES = Rows()
FREE, PRO = SERIES.of(ORDERS, plan="free"), SERIES.of(ORDERS, plan="pro")
PROBE = "pulsegate_sink_probe"


class SteppedClock:
    """Time passes only when something sleeps, and then at once."""

    def __init__(self) -> None:
        self._now_ms = NOW_MS
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic(self) -> float:
        return self._now_ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now_ms += int(seconds * 1000)
        await asyncio.sleep(0)


class ScriptedSink(RemoteWrite):
    """Remote write whose receiver is a function of the samples; it keeps what it accepted, the same sample once."""

    def __init__(self) -> None:
        super().__init__(None, "")  # type: ignore[arg-type]  # nothing is sent
        self.answer: Callable[[list[Sample]], Answer] = lambda _: ACCEPTED
        self.open = asyncio.Event()
        self.open.set()
        self.bodies: list[bytes] = []
        self.accepted: list[Sample] = []
        self._known: set[object] = set()

    async def send(self, body: bytes) -> Answer:
        samples = [(f"{labels['__name__']} {labels.get('plan', '')}".strip(), *rest) for labels, *rest in read(body)]
        self.bodies.append(body)
        await self.open.wait()
        answer = self.answer(samples)  # type: ignore[arg-type]
        if answer.status == 204:
            new = [each for each in samples if each[0] != PROBE and each not in self._known]
            self.accepted += new  # type: ignore[arg-type]
            self._known.update(new)
        return answer

    def script(self, *answers: Answer) -> None:
        """Answers in this order, then accepts everything."""
        left = list(answers)
        self.answer = lambda _: left.pop(0) if left else ACCEPTED


@pytest.fixture
async def sink() -> ScriptedSink:
    return ScriptedSink()


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@asynccontextmanager
async def delivering(
    sink: ScriptedSink,
    clock: SteppedClock,
    backlog: Backlog | None = None,
    *,
    lane: int = 0,
    longest_seconds: float = 604_800.0,
) -> AsyncIterator[Delivery]:
    backlog = backlog or Backlog(1 << 20)
    delivery = Delivery(sink, lane, clock, backlog, delivered_ms=0, longest_seconds=longest_seconds)
    running = asyncio.create_task(delivery.run())
    try:
        yield delivery
    finally:
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled(), running


def offer(delivery: Delivery, commit_ms: int, *samples: Samples) -> None:
    delivery.offer(commit_ms, SERIES.joined(*samples))


def count(outcome: str) -> float:
    labels = {"sink": "remote_write", "outcome": outcome}
    return REGISTRY.get_sample_value("pulsegate_sink_samples_total", labels) or 0.0


def pending_bytes(lane: int = 0) -> float:
    labels = {"sink": "remote_write", "lane": str(lane)}
    return REGISTRY.get_sample_value("pulsegate_sink_pending_bytes", labels) or 0.0


async def flushed(delivery: Delivery) -> None:
    await asyncio.wait_for(delivery.flushed(), 10.0)


def offer_commits(delivery: Delivery, of: Sequence[int], seconds: range) -> None:
    """One commit a second; each series counts the seconds."""
    for second in seconds:
        at_ms = NOW_MS + second * 1000
        offer(delivery, at_ms, *(SERIES.sample(each, at_ms, float(second)) for each in of))


async def test_the_watermark_moves_only_after_acceptance(sink: ScriptedSink, clock: SteppedClock) -> None:
    async with delivering(sink, clock) as delivery:
        sink.open.clear()
        offer_commits(delivery, [PRO], range(2))
        await eventually(lambda: asyncio.sleep(0, bool(sink.bodies)), what="the first request is under way")
        assert delivery.delivered_ms == 0
        assert not await Deliveries([delivery]).flushed(0.01)
        sink.open.set()
        await flushed(delivery)
        assert delivery.delivered_ms == NOW_MS + 1000
        assert sink.accepted == [("orders_total pro", 0.0, NOW_MS), ("orders_total pro", 1.0, NOW_MS + 1000)]


async def test_what_was_once_sent_is_sent_again_byte_for_byte(sink: ScriptedSink, clock: SteppedClock) -> None:
    refusals = [Answer(503, ""), Answer(429, ""), Answer(0, "ClientError"), Answer(500, "a"), Answer(500, "the probe")]
    sink.script(*refusals, Answer(302, ""), Answer(502, ""))
    async with delivering(sink, clock) as delivery:
        offer_commits(delivery, [PRO], range(3))
        await flushed(delivery)
    assert len({*sink.bodies[:4], *sink.bodies[5:8]}) == 1
    assert [value for _, value, _ in sink.accepted] == [0.0, 1.0, 2.0]
    assert len(clock.slept) == 6


async def test_the_sink_may_ask_for_a_pause(sink: ScriptedSink, clock: SteppedClock) -> None:
    sink.script(Answer(429, "", 7.0), Answer(503, "", 1e9))
    async with delivering(sink, clock) as delivery:
        offer_commits(delivery, [PRO], range(1))
        await flushed(delivery)
    assert clock.slept == [7.0, 60.0]


async def test_an_outage_coalesces_to_one_sample_a_series_every_15_seconds(
    sink: ScriptedSink, clock: SteppedClock
) -> None:
    both = [FREE, PRO]
    async with delivering(sink, clock) as delivery:
        sink.open.clear()
        offer_commits(delivery, both, range(1))
        await eventually(lambda: asyncio.sleep(0, bool(sink.bodies)))
        offer_commits(delivery, both, range(1, 601))
        sink.open.set()
        await flushed(delivery)
        assert delivery.delivered_ms == NOW_MS + 600_000
    for plan in ("free", "pro"):
        times = [at_ms for name, _, at_ms in sink.accepted if name.endswith(plan)]
        assert times == sorted(set(times))
        assert len(times) <= 600 / 15 + 8
        assert all(later - earlier <= 30_000 for earlier, later in pairwise(times))
        assert [value for name, value, _ in sink.accepted if name.endswith(plan)][-1] == 600.0


async def test_first_zeros_and_stale_markers_stay_and_stand_in_order(sink: ScriptedSink, clock: SteppedClock) -> None:
    start = NOW_MS - NOW_MS % 15_000
    async with delivering(sink, clock) as delivery:
        sink.open.clear()
        offer(delivery, start, SERIES.sample(PRO, start, -1.0))
        await eventually(lambda: asyncio.sleep(0, bool(sink.bodies)))
        for second in range(1, 7):
            offer(delivery, start + second)
        offer(delivery, start + 1000, SERIES.sample(PRO, start + 500, 0.0), SERIES.sample(PRO, start + 1000, 1.0))
        offer(delivery, start + 2000, SERIES.sample(PRO, start + 2000, 2.0))
        offer(delivery, start + 3000, SERIES.sample(PRO, start + 2998, stale=True))
        offer(delivery, start + 4000, SERIES.sample(PRO, start + 4000, 4.0))
        sink.open.set()
        await flushed(delivery)
    written = [(at_ms - start, bits(value) == STALE_BITS or value) for _, value, at_ms in sink.accepted]
    assert written == [(0, -1.0), (500, 0.0), (2998, True), (4000, 4.0)]


async def test_what_waits_is_bounded_and_the_newest_value_stays(sink: ScriptedSink, clock: SteppedClock) -> None:
    of = [SERIES.of(ORDERS, plan=f"p{number}") for number in range(10)]
    async with delivering(sink, clock, Backlog(100_000)) as delivery:
        sink.open.clear()
        offer_commits(delivery, of, range(1))
        await eventually(lambda: asyncio.sleep(0, bool(sink.bodies)))
        offer_commits(delivery, of, range(1, 3601))
        assert 50_000 < pending_bytes() <= 100_000
        sink.open.set()
        await flushed(delivery)
    assert {name: value for name, value, _ in sink.accepted} == {f"orders_total p{n}": 3600.0 for n in range(10)}


#: The sum of a native histogram's counts, as many buckets, their indexes and their counts.
_NATIVE = [160, 0, 0, 0, *range(160), *[1] * 160]


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        (MetricType.COUNTER, None),
        (MetricType.HISTOGRAM, [11] + [1] * 12),
        (MetricType.HISTOGRAM, [100] + [1] * 101),
        (MetricType.NATIVE_HISTOGRAM, _NATIVE),
    ],
)
async def test_what_waits_takes_no_more_memory_than_it_may_whatever_a_sample_holds(
    sink: ScriptedSink, clock: SteppedClock, kind: MetricType, counts: list[int] | None
) -> None:
    most_bytes = 1 << 20
    of = definition(f"held_{len(counts or ())}", kind, bounds=tuple(map(float, range(len(counts or ()) - 2))))
    rows = [SERIES.of(of, plan=f"p{number}") for number in range(50)]
    spans = [f"00-{number:032d}-{number:016d}-01" for number in range(8)]
    async with delivering(sink, clock, Backlog(most_bytes)) as delivery:
        sink.open.clear()
        offer_commits(delivery, [PRO], range(1))
        await eventually(lambda: asyncio.sleep(0, bool(sink.bodies)))
        tracemalloc.start()
        try:
            for slot in range(1, 401):
                at_ms = NOW_MS + slot * 15_000
                samples = SERIES.joined(*(SERIES.sample(row, at_ms, 1.0, counts) for row in rows))
                shown = {row: Exemplar(1.0, Span(bytes([slot % 256] * 16), b"s" * 8), at_ms) for row in rows[:4]}
                delivery.offer(at_ms, samples.with_exemplars(shown), spans)
            del samples, shown
            gc.collect()
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most_bytes / 2 < taken < most_bytes
        assert most_bytes / 2 < pending_bytes() <= most_bytes


async def test_lanes_share_what_may_wait_and_those_with_most_of_it_are_coalesced(clock: SteppedClock) -> None:
    many = [SERIES.of(ORDERS, plan=f"p{number}") for number in range(100)]
    heavy_sink, light_sink, backlog = ScriptedSink(), ScriptedSink(), Backlog(300_000)
    async with (
        delivering(heavy_sink, clock, backlog) as heavy,
        delivering(light_sink, clock, backlog, lane=1) as light,
    ):
        for sink in (heavy_sink, light_sink):
            sink.open.clear()
        for slot in range(60):
            offer_commits(heavy, many, range(slot * 15, slot * 15 + 1))
            offer_commits(light, [PRO], range(slot * 15, slot * 15 + 1))
            await asyncio.sleep(0)
        assert 250_000 < pending_bytes(0) + pending_bytes(1) <= 300_000
        for sink in (heavy_sink, light_sink):
            sink.open.set()
        await flushed(heavy)
        await flushed(light)
    assert len({at_ms for *_, at_ms in heavy_sink.accepted}) < 30
    assert len({at_ms for *_, at_ms in light_sink.accepted}) == 60


async def test_what_waited_with_a_lane_that_is_given_back_leaves_its_room_to_others(clock: SteppedClock) -> None:
    given_back, kept, backlog = ScriptedSink(), ScriptedSink(), Backlog(100_000)
    for sink in (given_back, kept):
        sink.open.clear()
    async with delivering(given_back, clock, backlog) as delivery:
        offer_commits(delivery, [PRO], range(0, 30 * 15, 15))
        await eventually(lambda: asyncio.sleep(0, bool(given_back.bodies)))
    async with delivering(kept, clock, backlog, lane=1) as delivery:
        offer_commits(delivery, [PRO], range(0, 40 * 15, 15))
        kept.open.set()
        await flushed(delivery)
    assert len(kept.accepted) == 40


async def test_many_samples_travel_in_several_requests(sink: ScriptedSink, clock: SteppedClock) -> None:
    histogram = definition("load_seconds", MetricType.HISTOGRAM, bounds=tuple(float(bound) for bound in range(8)))
    samples = [
        SERIES.sample(SERIES.of(histogram, plan=f"p{number}"), NOW_MS, counts=[9] + [1] * 9) for number in range(1000)
    ]
    async with delivering(sink, clock) as delivery:
        offer(delivery, NOW_MS, *samples)
        await flushed(delivery)
    assert [len(read(body)) for body in sink.bodies] == [5005, 5005, 990]


@pytest.mark.parametrize(
    ("refusal", "requests"), [(Answer(400, "out of order"), 1), (Answer(422, ""), 1), (Answer(500, "bad sample"), 2)]
)
async def test_only_the_bad_sample_is_put_aside(
    sink: ScriptedSink, clock: SteppedClock, refusal: Answer, requests: int
) -> None:
    plans = [f"p{number}" for number in range(50)]
    sink.answer = lambda samples: refusal if any(name.endswith(" p17") for name, *_ in samples) else ACCEPTED
    before = count("quarantined"), count("delivered")
    async with delivering(sink, clock) as delivery:
        offer(delivery, NOW_MS, *(SERIES.sample(SERIES.of(ORDERS, plan=plan), NOW_MS, 1.0) for plan in plans))
        await flushed(delivery)
        assert delivery.delivered_ms == NOW_MS
    assert {name for name, *_ in sink.accepted} == {f"orders_total {plan}" for plan in plans if plan != "p17"}
    assert len(sink.accepted) == 49
    assert (count("quarantined") - before[0], count("delivered") - before[1]) == (1, 49)
    assert len(sink.bodies) < 60 * requests


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_a_sink_that_comes_back_between_a_failure_and_the_probe_loses_nothing(
    sink: ScriptedSink, clock: SteppedClock, status: int
) -> None:
    sink.script(Answer(status, "starting"))  # then the probe is accepted
    before = count("quarantined")
    async with delivering(sink, clock) as delivery:
        offer_commits(delivery, [PRO], range(1))
        await flushed(delivery)
    assert [value for _, value, _ in sink.accepted] == [0.0]
    assert count("quarantined") == before


class FullSink:
    """Takes no series that it does not have, not even the probe, and refuses the whole request for one."""

    def __init__(self, *names: str) -> None:
        self.names = {f"orders_total {name}" for name in names}

    def __call__(self, samples: list[Sample]) -> Answer:
        return ACCEPTED if self.names.issuperset(name for name, *_ in samples) else Answer(400, "too many series")


@pytest.mark.parametrize("new_first", [True, False])
async def test_a_sink_that_takes_no_new_series_gets_all_others(
    sink: ScriptedSink, clock: SteppedClock, new_first: bool
) -> None:
    """Also where the lane has a new owner, which has delivered nothing yet."""
    old = [f"p{number}" for number in range(20)]
    plans = ["new", *old] if new_first else [*old, "new"]
    before = count("quarantined")
    sink.answer = FullSink(*old)
    async with delivering(sink, clock) as delivery:
        offer(delivery, NOW_MS, *(SERIES.sample(SERIES.of(ORDERS, plan=plan), NOW_MS, 1.0) for plan in plans))
        await flushed(delivery)
    assert {name for name, *_ in sink.accepted} == {f"orders_total {plan}" for plan in old}
    assert count("quarantined") - before == 1


async def test_what_it_took_last_tells_that_it_takes_something(sink: ScriptedSink, clock: SteppedClock) -> None:
    before = count("quarantined")
    async with delivering(sink, clock) as delivery:
        offer_commits(delivery, [PRO], range(1))
        await flushed(delivery)
        sink.answer = FullSink("pro")
        offer_commits(delivery, [FREE], range(1, 2))
        await flushed(delivery)
        offer_commits(delivery, [PRO], range(2, 3))
        await flushed(delivery)
    assert [(name, value) for name, value, _ in sink.accepted] == [("orders_total pro", 0.0), ("orders_total pro", 2.0)]
    assert count("quarantined") - before == 1
    assert sink.bodies[2] == sink.bodies[0], "byte for byte"


def refusing(refusal: Answer, *plans: str) -> Callable[[list[Sample]], Answer]:
    """Refuses requests that have one of these."""
    bad = {f"orders_total {plan}" for plan in plans}
    return lambda samples: ACCEPTED if bad.isdisjoint(name for name, *_ in samples) else refusal


def names_in(body: bytes) -> set[str]:
    return {labels.get("plan", "") for labels, *_ in read(body)}


@pytest.mark.parametrize("refusal", [Answer(400, "label limit"), Answer(500, "native histograms are disabled")])
async def test_what_is_refused_costs_its_requests_once_and_is_counted_on(
    sink: ScriptedSink, clock: SteppedClock, refusal: Answer
) -> None:
    rows = [SERIES.of(ORDERS, plan=f"p{number}") for number in range(500)]
    sink.answer = refusing(refusal, *(f"p{number}" for number in range(0, 500, 100)))
    before = count("quarantined")
    async with delivering(sink, clock) as delivery:
        offer_commits(delivery, rows, range(1))
        await flushed(delivery)
        assert len(sink.bodies) < 150
        assert clock.slept == []
        for second in range(1, 4):
            del sink.bodies[:]
            offer_commits(delivery, rows, range(second, second + 1))
            await flushed(delivery)
            assert [len(names_in(body)) for body in sink.bodies] == [495]
    assert count("quarantined") - before == 4 * 5


async def test_a_refused_series_is_tried_after_1_2_4_8_and_then_every_10_minutes_by_itself_after_all_others(
    sink: ScriptedSink, clock: SteppedClock
) -> None:
    sink.answer = refusing(Answer(400, "label limit"), "free")
    tried: list[int] = []
    async with delivering(sink, clock) as delivery:
        for second in range(0, 40 * 60, 15):
            del sink.bodies[:]
            offer_commits(delivery, [FREE, PRO], range(second, second + 1))
            await flushed(delivery)
            if second and len(sink.bodies) > 1:
                assert [names_in(body) for body in sink.bodies] == [{"pro"}, {"free"}]
                tried.append(second // 60)
            await clock.sleep(15.0)
        assert tried == [1, 3, 7, 15, 25, 35]
        sink.answer = lambda _: ACCEPTED
        await clock.sleep(600.0)
        for second in (3601, 3602):
            del sink.bodies[:]
            offer_commits(delivery, [FREE, PRO], range(second, second + 1))
            await flushed(delivery)
    assert [names_in(body) for body in sink.bodies] == [{"free", "pro"}], "it is like others again"


async def test_many_that_are_refused_again_cost_few_requests_and_those_that_are_not_get_through(
    sink: ScriptedSink, clock: SteppedClock
) -> None:
    plans = [f"p{number}" for number in range(300)]
    rows = [SERIES.of(ORDERS, plan=plan) for plan in plans]
    sink.answer = refusing(Answer(400, "too many series"), *plans)
    async with delivering(sink, clock) as delivery:
        offer_commits(delivery, [*rows, PRO], range(1))
        await flushed(delivery)
        sink.answer = refusing(Answer(400, "too many series"), *plans[10:])
        for minutes in range(1, 1000, 10):
            await clock.sleep(600.0)
            del sink.bodies[:]
            offer_commits(delivery, [*rows, PRO], range(minutes * 60, minutes * 60 + 1))
            await flushed(delivery)
            assert len(sink.bodies) <= 1 + 101
    assert {name for name, *_ in sink.accepted} == {
        "orders_total pro",
        *(f"orders_total {each}" for each in plans[:10]),
    }


async def test_a_series_that_ends_is_set_aside_no_more_and_its_end_is_told(
    sink: ScriptedSink, clock: SteppedClock
) -> None:
    """Its row may be that of another series next."""
    sink.answer = refusing(Answer(400, "label limit"), "free")
    async with delivering(sink, clock) as delivery:
        offer_commits(delivery, [FREE, PRO], range(1))
        await flushed(delivery)
        del sink.bodies[:]
        offer(delivery, NOW_MS + 1000, SERIES.sample(FREE, NOW_MS + 998, stale=True))
        await flushed(delivery)
        assert [names_in(body) for body in sink.bodies] == [{"free"}]
        sink.answer = lambda _: ACCEPTED
        offer_commits(delivery, [FREE], range(2, 3))
        await flushed(delivery)
    assert sink.accepted[-1] == ("orders_total free", 2.0, NOW_MS + 2000)


@pytest.mark.parametrize("kind", [MetricType.COUNTER, MetricType.NATIVE_HISTOGRAM])
async def test_one_sample_that_comes_too_late_sets_no_series_aside(
    sink: ScriptedSink, clock: SteppedClock, kind: MetricType
) -> None:
    row = SERIES.of(definition("late_total", kind), plan="late")

    def in_order(_: list[Sample]) -> Answer:
        body = sink.bodies[-1]
        times = [at_ms for _, _, at_ms in read(body) if at_ms] + [each.at_ms for each in read_histograms(body)]
        return ACCEPTED if min(times) >= NOW_MS else Answer(400, "out of order sample")

    sink.answer = in_order
    async with delivering(sink, clock) as delivery:
        for second in (0, 1):
            at_ms = NOW_MS + second * 1000
            first = [SERIES.sample(row, at_ms - 1)] if second == 0 else []
            offer(delivery, at_ms, *first, SERIES.sample(row, at_ms, 1.0))
            await flushed(delivery)
    last = sink.bodies[-1]
    assert NOW_MS + 1000 in [at_ms for *_, at_ms in read(last)] + [each.at_ms for each in read_histograms(last)]


@pytest.mark.parametrize("refusal", [Answer(401, "who are you"), Answer(404, ""), Answer(400, "broken")])
async def test_a_sink_that_refuses_everything_is_waited_for(
    sink: ScriptedSink, clock: SteppedClock, refusal: Answer
) -> None:
    sink.script(*[refusal] * 20)
    before = count("quarantined")
    async with delivering(sink, clock) as delivery:
        offer_commits(delivery, [PRO], range(3))
        await flushed(delivery)
    assert [value for _, value, _ in sink.accepted] == [0.0, 1.0, 2.0]
    assert count("quarantined") == before
    assert len(clock.slept) == 10


async def test_samples_older_than_the_sink_takes_are_dropped_before_sending(
    sink: ScriptedSink, clock: SteppedClock
) -> None:
    old_ms = NOW_MS - 7 * DAY_MS - 1
    before = count("too_old")
    async with delivering(sink, clock) as delivery:
        offer(delivery, old_ms, SERIES.sample(PRO, old_ms, 1.0), SERIES.sample(FREE, old_ms, 1.0))
        offer(delivery, NOW_MS, SERIES.sample(PRO, old_ms, 0.0), SERIES.sample(PRO, NOW_MS, 2.0))
        await flushed(delivery)
        assert delivery.delivered_ms == NOW_MS
    assert sink.accepted == [("orders_total pro", 2.0, NOW_MS)]
    assert count("too_old") - before == 3


async def test_an_exemplar_that_is_refused_takes_no_sample_along(sink: ScriptedSink, clock: SteppedClock) -> None:
    shown = {PRO: Exemplar(1.0, Span(b"t" * 16, b"s" * 8), NOW_MS)}
    before = count("quarantined")
    async with delivering(sink, clock) as delivery:
        sink.answer = lambda _: Answer(400, "exemplar") if read_exemplars(sink.bodies[-1]) else ACCEPTED
        offer(delivery, NOW_MS, SERIES.sample(PRO, NOW_MS, 1.0).with_exemplars(shown))
        await flushed(delivery)
    assert [len(read_exemplars(body)) for body in sink.bodies] == [1, 0]
    assert sink.accepted == [("orders_total pro", 1.0, NOW_MS)]
    assert count("quarantined") == before


async def test_native_histograms_have_an_age_of_their_own(sink: ScriptedSink, clock: SteppedClock) -> None:
    waits = SERIES.of(definition("wait_seconds", MetricType.NATIVE_HISTOGRAM))
    older_ms, newer_ms = NOW_MS - 3_000_001, NOW_MS - 3_000_000
    async with delivering(sink, clock) as delivery:
        offer(delivery, older_ms, SERIES.sample(waits, older_ms), SERIES.sample(PRO, older_ms, 1.0))
        offer(delivery, newer_ms, SERIES.sample(waits, newer_ms))
        await flushed(delivery)
    assert sink.accepted == [("orders_total pro", 1.0, older_ms)]
    assert [each.at_ms for body in sink.bodies for each in read_histograms(body)] == [newer_ms]


async def test_the_log_has_one_line_of_a_request_for_what_was_sent_before_and_one_for_what_is_lost(
    sink: ScriptedSink, clock: SteppedClock
) -> None:
    native = definition("wait_seconds", MetricType.NATIVE_HISTOGRAM)
    waits = [SERIES.sample(SERIES.of(native, plan=f"p{number}"), NOW_MS) for number in range(20)]
    orders = [SERIES.sample(each, NOW_MS, 1.0) for each in (FREE, PRO)]
    before = count("quarantined")

    def refusing(samples: list[Sample]) -> Answer:
        wanted = not any(name != PROBE for name, *_ in samples) and not read_histograms(sink.bodies[-1])
        return ACCEPTED if wanted else Answer(400, "out of order sample")

    sink.answer = refusing
    with logged_by(samples_writer) as said:
        async with delivering(sink, clock) as delivery:
            offer(delivery, NOW_MS, *waits, *orders)
            await flushed(delivery)
    lines = [(each["log_level"], each["event"], each["samples"], each["first"]["series"]) for each in said]
    assert lines == [
        ("info", "native histograms put aside", 20, "wait_seconds"),
        ("error", "samples put aside", 2, "orders_total"),
    ]
    assert count("quarantined") - before == 22


@pytest.mark.parametrize(
    ("refusal", "stale", "level"),
    [
        ("label limit", False, "error"),
        ("out of order sample", True, "info"),
        ("duplicate sample for timestamp", True, "info"),
        ("duplicate sample for timestamp", False, "error"),
    ],
)
async def test_what_prometheus_says_of_a_native_histogram_tells_whether_it_is_lost(
    sink: ScriptedSink, clock: SteppedClock, refusal: str, stale: bool, level: str
) -> None:
    waits = SERIES.of(definition("wait_seconds", MetricType.NATIVE_HISTOGRAM))
    sink.answer = lambda _: Answer(400, refusal) if read_histograms(sink.bodies[-1]) else ACCEPTED
    with logged_by(samples_writer) as said:
        async with delivering(sink, clock) as delivery:
            offer(delivery, NOW_MS, SERIES.sample(waits, NOW_MS, stale=stale))
            await flushed(delivery)
    assert [(each["log_level"], each["first"]["text"]) for each in said] == [(level, refusal)]


async def test_a_sink_that_fails_on_and_on_is_given_rests(sink: ScriptedSink, clock: SteppedClock) -> None:
    sink.script(*[Answer(503, "")] * 12)
    async with delivering(sink, clock) as delivery:
        offer_commits(delivery, [PRO], range(1))
        await flushed(delivery)
    assert [value for _, value, _ in sink.accepted] == [0.0]
    assert len(clock.slept) > 12, "some attempts were refused by the breaker"
    assert max(clock.slept) <= 5.0


async def test_who_gives_a_lane_back_shows_no_breaker_of_it_any_more(sink: ScriptedSink, clock: SteppedClock) -> None:
    def is_open() -> float | None:
        return REGISTRY.get_sample_value("pulsegate_breaker_open", {"upstream": "sink remote_write, lane 0"})

    sink.answer = lambda _: Answer(503, "")
    async with delivering(sink, clock) as delivery:
        offer_commits(delivery, [PRO], range(1))
        await eventually(lambda: asyncio.sleep(0, is_open() == 1.0), what="the breaker opens")
    assert is_open() is None


async def test_a_dead_sink_starts_over_when_too_much_has_ended_that_it_lacks(
    sink: ScriptedSink, clock: SteppedClock
) -> None:
    store, before = Store(), count("given_up")

    def churn(second: int) -> None:
        """Ten series come, and go with their definition."""
        store.delivered_ms = delivery.delivered_ms
        of = definition("jobs_total", labels={"n": label()}, id=second.to_bytes(16, "big"))
        store.fold(record(delta(ORDERS, 1.0, plan="pro"), *(delta(of, 1.0, n=str(n)) for n in range(10))), ended(of))
        sealed = store.commit(NOW_MS + second * 1000)
        delivery.offer(sealed.commit_ms, sealed.samples)

    async with delivering(sink, clock, Backlog(400_000)) as delivery:
        sink.open.clear()
        for second in range(1, 301):
            churn(second)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert store.table.size < 600, "rows of ended series are used again"
        assert delivery.delivered_ms > NOW_MS
        sink.open.set()
        await flushed(delivery)
        churn(301)
        await flushed(delivery)
        assert delivery.delivered_ms == store.commit_ms
    assert count("given_up") > before
    assert max(value for name, value, _ in sink.accepted if name == "orders_total pro") == 301.0


async def test_of_lanes_that_share_what_may_wait_those_start_over_that_have_most_of_what_must_stay(
    clock: SteppedClock,
) -> None:
    sinks, backlog = (ScriptedSink(), ScriptedSink()), Backlog(200_000)
    async with (
        delivering(sinks[0], clock, backlog) as ending,
        delivering(sinks[1], clock, backlog, lane=1) as living,
    ):
        for sink in sinks:
            sink.open.clear()
        for second in range(0, 30 * 15, 15):
            at_ms = NOW_MS + second * 1000
            offer(ending, at_ms, *(SERIES.sample(row, at_ms - 2, stale=True) for row in [FREE] * 10))
            offer_commits(living, [PRO], range(second, second + 1))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert ending.delivered_ms > NOW_MS
        assert living.delivered_ms == 0


async def test_a_sink_that_lacks_live_series_alone_is_waited_for(sink: ScriptedSink, clock: SteppedClock) -> None:
    store, before = Store(), count("given_up")
    async with delivering(sink, clock, Backlog(10_000)) as delivery:
        sink.open.clear()
        for second in range(1, 101):
            store.fold(record(*(delta(ORDERS, 1.0, plan=str(n)) for n in range(99))))
            sealed = store.commit(NOW_MS + second * 1000)
            delivery.offer(sealed.commit_ms, sealed.samples)
            await asyncio.sleep(0)
        sink.open.set()
        await flushed(delivery)
    assert count("given_up") == before
    assert {value for _, value, _ in sink.accepted[-99:]} == {100.0}


async def test_a_sink_that_takes_nothing_for_too_long_starts_over(sink: ScriptedSink, clock: SteppedClock) -> None:
    before = count("given_up")
    async with delivering(sink, clock, longest_seconds=3600.0) as delivery:
        sink.open.clear()
        offer_commits(delivery, [FREE, PRO], range(1))
        await eventually(lambda: asyncio.sleep(0, bool(sink.bodies)))
        offer_commits(delivery, [PRO], range(3600, 3601))
        await clock.sleep(3600.0)
        offer_commits(delivery, [PRO], range(3601, 3602))
        assert delivery.delivered_ms == 0
        await clock.sleep(1.0)
        offer_commits(delivery, [PRO], range(3602, 3603))
        await flushed(delivery)
        assert delivery.delivered_ms == NOW_MS + 3_602_000
        sink.open.set()
        offer_commits(delivery, [PRO], range(3603, 3604))
        await flushed(delivery)
    assert count("given_up") - before == 5
    assert sink.accepted == [("orders_total pro", 3603.0, NOW_MS + 3_603_000)]
