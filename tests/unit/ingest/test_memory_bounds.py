"""What receivers and aggregators remember takes no more memory than it may, whatever clients send."""

import gc
import json
import resource
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from services.ingest.domain import Fault, MetricType, Outcome, Rejection, series_id
from services.ingest.durable_outcomes import DurableOutcomes
from services.ingest.folding import portions_of
from services.ingest.native_histograms import NativeBuckets
from services.ingest.producers import FEW_GAPS, MOST_NUMBERS_OF_PROJECT, Producers
from services.ingest.samples import Samples
from services.ingest.series import SeriesTable
from services.ingest.sinks.remote_write import RemoteWrite
from services.ingest.sources import Sources
from services.ingest.validation import CompiledDefinition, LabelSet, LabelSetMemory
from services.ingest.windows import MOST_GAPS, Window
from tests.unit.ingest.ingestion import NOW_MS, PROJECT, Told, definition, delta, label, pairs_of, record, totals
from tests.unit.ingest.lane_store import family_of

WAIT = definition("wait_seconds", MetricType.HISTOGRAM, bounds=tuple(map(float, range(1, 200))))
ORDERS = definition("orders_total")
MOST_BYTES = 4 << 20


def taken(fill: Callable[[], object]) -> int:
    """Bytes that stay allocated for what `fill` returns."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = fill()
        gc.collect()
        now, _ = tracemalloc.get_traced_memory()
        del kept
        return now
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "bounds", "labels"),
    [
        (MetricType.COUNTER, 0, 1),
        (MetricType.COUNTER, 0, 16),
        (MetricType.HISTOGRAM, 12, 1),
        (MetricType.HISTOGRAM, 100, 1),
        (MetricType.HISTOGRAM, 12, 16),
        (MetricType.NATIVE_HISTOGRAM, 0, 1),
    ],
)
def test_live_series_take_no_more_than_they_count_for(kind: MetricType, bounds: int, labels: int) -> None:
    """With what remote write keeps of their labels."""
    work = definition("work_seconds", kind, bounds=tuple(map(float, range(bounds))))
    names = [f"label_{number:02}" for number in range(labels)]
    label_sets = [pairs_of(dict.fromkeys(names, f"{number:0200}")) for number in range(500)]
    sink = RemoteWrite(session=None, url=str)  # type: ignore[arg-type]  # nothing is sent
    full = NativeBuckets()
    full.observe(1.1**power for power in range(300))

    def fill() -> SeriesTable:
        table = SeriesTable()
        family = table.enter(family_of(work))
        rows = np.array([table.make(series_id(work.id, each), family, each) for each in label_sets])
        table.settle()
        for row in rows.tolist():
            if kind is MetricType.NATIVE_HISTOGRAM:
                table.counts[row] = np.array([full.count, *full.packed()])
            elif kind is MetricType.HISTOGRAM:
                table.counts[row] = table.counts[row] + 1
        sink.encode(Samples.values(table, rows, NOW_MS))
        return table

    table = fill()  # once before: how labels are encoded is remembered of some thousands, whosesoever they are
    counted = 1024 * table.kilobytes(table.families[0], np.arange(table.size))
    assert counted / 3 < taken(fill) < counted


def id_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


def outcome(number: int, rejected: int) -> Outcome:
    rejections = [
        Rejection(index=index, code="METRIC_NOT_DEFINED", message=f"{number}-{index}-" + "\u0394" * 150)
        for index in range(rejected)
    ]
    return Outcome(accepted=1, rejected=tuple(rejections))


@pytest.mark.parametrize(("rejected", "batches"), [(0, 20_000), (3, 6_000), (99, 600)])
def test_outcomes_are_remembered_within_their_bytes(rejected: int, batches: int) -> None:
    def fill() -> DurableOutcomes:
        remembered = DurableOutcomes(most_bytes=MOST_BYTES)
        for number in range(batches):
            remembered.remember((bytes([*PROJECT]), id_of(number), number), outcome(number, rejected))
        assert (PROJECT, id_of(0), 0) not in remembered
        assert (PROJECT, id_of(batches - 1), batches - 1) in remembered
        return remembered

    assert taken(fill) < MOST_BYTES


def test_as_many_outcomes_are_remembered_as_may_be_and_the_first_one_of_a_batch_stays() -> None:
    remembered = DurableOutcomes(most=2)
    for number in (1, 2, 2, 3):
        remembered.remember((PROJECT, id_of(number), number), outcome(number, 1))
    assert [(PROJECT, id_of(number), number) in remembered for number in (1, 2, 3)] == [False, True, True]
    remembered.remember((PROJECT, id_of(3), 3), outcome(3, 0))
    known = remembered.get((PROJECT, id_of(3), 3))
    assert known is not None
    assert len(known.rejected) == 1


@pytest.mark.parametrize(("gaps", "count"), [(0, 12_000), (400, 400)])
def test_windows_in_memory_take_no_more_than_their_bytes(gaps: int, count: int) -> None:
    def fill() -> Producers:
        producers = Producers(MOST_BYTES)
        for number in range(count):
            producers.admit((bytes([*PROJECT]), id_of(number)), Window())
            for sequence in range(2**40, 2**40 + 2 * gaps + 1, 2):
                producers.claim(record(producer=id_of(number), sequence=sequence))
            producers.seal(NOW_MS)
            producers.drop_idle(NOW_MS)
        assert 0 < len(producers) < count
        return producers

    assert taken(fill) < MOST_BYTES


def full_window() -> Window:
    """One that has seen 3, 5, 7, …, and nothing between."""
    return Window(ranges=[each for odd in range(3, 3 + 2 * MOST_GAPS, 2) for each in (odd, odd)])


def test_of_a_project_with_very_many_gaps_each_producer_that_goes_on_keeps_few() -> None:
    producers, count, newest = Producers(), 200, 3 + 2 * MOST_GAPS
    for number in range(count):
        producers.admit((PROJECT, id_of(number)), full_window())
        repeated = number % 2
        assert producers.claim(record(producer=id_of(number), sequence=newest - 2 * repeated)) is not bool(repeated)
    stored = {row.key: len(row.ranges) for row in producers.seal(NOW_MS)}
    assert stored[PROJECT, id_of(0)] == 2 * MOST_GAPS
    assert sum(stored.values()) <= MOST_NUMBERS_OF_PROJECT + 2 * (MOST_GAPS + count * FEW_GAPS)
    last = id_of(count - 2)
    assert not producers.claim(record(producer=last, sequence=newest - 2 * FEW_GAPS - 1)), "it is closed"
    assert producers.claim(record(producer=last, sequence=newest - 1)), "the newest gaps are not"
    assert producers.claim(record(producer=last, sequence=newest - 2 * FEW_GAPS + 1))


def test_very_many_gaps_of_a_project_close_none_of_another() -> None:
    producers, other = Producers(), bytes(16)
    for number in range(40):
        producers.admit((PROJECT, id_of(number)), full_window())
        producers.admit((other, id_of(number)), Window())
    producers.admit((other, id_of(99)), full_window())
    producers.claim(record(producer=id_of(39), sequence=4))
    assert producers.claim(msgspec.structs.replace(record(producer=id_of(99), sequence=4), project_id=other))
    assert [len(row.ranges) // 2 for row in producers.seal(NOW_MS)] == [FEW_GAPS, MOST_GAPS - 1]


@pytest.mark.parametrize(("buckets", "count"), [(0, 6_000), (200, 800)])
def test_totals_in_memory_take_no_more_than_their_bytes(buckets: int, count: int) -> None:
    def fill() -> Sources:
        sources = Sources(MOST_BYTES)
        for number in range(count):
            numbers = list(range(1_000 * number + 1_000, 1_000 * number + 1_000 + buckets))
            told = totals(Told(WAIT if buckets else ORDERS, f"{number}", 1, 1.5, numbers))
            [portion] = portions_of([told])
            [reading] = portion.readings()
            sources.admit((bytes([*PROJECT]), reading.source), ())
            sources.increments(portion, [told.definitions[0].id], portion.mask([False]))
            sources.seal(NOW_MS)
            sources.drop_idle(NOW_MS)
        assert 0 < len(sources) < count
        return sources

    assert taken(fill) < MOST_BYTES


def test_what_has_left_memory_gives_its_bytes_back() -> None:
    producers = Producers(MOST_BYTES)
    for times in range(300):
        producers.admit((PROJECT, id_of(times)), Window(ranges=range(10, 4_010)))
        producers.drop_idle(NOW_MS)
    producers.drop_idle(NOW_MS)
    assert len(producers) == 0, "each was idle"
    for number in range(20):
        producers.admit((PROJECT, id_of(number)), Window(ranges=range(10, 4_010), used_ms=NOW_MS))
        producers.claim(record(delta(ORDERS), producer=id_of(number), sequence=5_000, floor=4_900))
    producers.seal(NOW_MS)
    producers.drop_idle(NOW_MS)
    assert len(producers) == 20, "their ranges are gone"


def test_a_stored_pattern_that_needs_more_than_patterns_may_allows_no_value() -> None:
    compiled = CompiledDefinition(
        definition("visits_total", labels={"city": label(pattern=r"\pL{10}")}), LabelSetMemory()
    )
    refused = compiled.label_set(b'{"city":"Heidelberg"}')
    assert isinstance(refused, Fault)
    assert refused.code == "LABEL_VALUE_NOT_ALLOWED"


def test_the_patterns_of_very_many_definitions_take_no_more_memory_than_some() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before, memory = resident(), LabelSetMemory()
    kept = []
    for number in range(200):
        labels = {f"l{place}": label(pattern=rf"\pL{{4}}{number}_{place}") for place in range(16)}
        kept.append(CompiledDefinition(definition(f"m{number}_total", labels=labels), memory))
    for number, compiled in enumerate(kept[:50]):
        sent = {f"l{place}": f"abcd{number}_{place}" for place in range(16)}
        assert isinstance(compiled.label_set(json.dumps(sent).encode()), LabelSet)
    assert resident() - before < 100 << 20
