"""What is encoded for remote write, read back by its schema."""

import math
import uuid
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain import Definition, MetricType
from services.ingest.exemplars import Exemplar, Span
from services.ingest.native_histograms import NativeBuckets
from services.ingest.samples import Samples
from services.ingest.sinks.remote_write import RemoteWrite, format_bound
from tests.unit.ingest.ingestion import NOW_MS, PROJECT, TENANT, definition
from tests.unit.ingest.lane_store import Rows
from tests.unit.ingest.remote_write_schema import STALE_BITS, bits, read, read_exemplars, read_histograms

GOLDEN_BOUNDS = Path(__file__).parents[2] / "golden" / "ingest" / "bounds.txt"

IDENTITY = {"tenant_id": str(uuid.UUID(bytes=TENANT)), "project_id": str(uuid.UUID(bytes=PROJECT))}
COUNTER = definition("orders_total")
GAUGE = definition("depth", MetricType.GAUGE)
HISTOGRAM = definition("load_seconds", MetricType.HISTOGRAM, bounds=(0.005, 1.0, 1e6))
NATIVE = definition("wait_seconds", MetricType.NATIVE_HISTOGRAM)
SUMMARY = definition("size_bytes", MetricType.SUMMARY)
OBSERVED = definition("took", MetricType.SUMMARY, objectives=(0.5, 0.999))


@pytest.fixture
def series() -> Rows:
    return Rows()


@pytest.fixture
async def sink() -> RemoteWrite:
    async with aiohttp.ClientSession() as session:
        return RemoteWrite(session, lambda: "http://127.0.0.1:9/write")


def test_counters_and_gauges_are_one_sample_each(sink: RemoteWrite, series: Rows) -> None:
    samples = series.joined(
        series.sample(series.of(COUNTER, plan="pro", Zone="eu"), NOW_MS, 5.0),
        series.sample(series.of(GAUGE), NOW_MS + 1, -0.5),
    )
    assert read(sink.encode(samples)) == [
        ({"__name__": "orders_total", "plan": "pro", "Zone": "eu", **IDENTITY}, 5.0, NOW_MS),
        ({"__name__": "depth", **IDENTITY}, -0.5, NOW_MS + 1),
    ]


def test_a_histogram_is_cumulative_buckets_sum_and_count(sink: RemoteWrite, series: Rows) -> None:
    sealed = series.sample(series.of(HISTOGRAM, plan="pro"), NOW_MS, 12.5, [10, 1, 2, 3, 4])
    samples = read(sink.encode(sealed))
    assert [(labels["__name__"], labels.get("le"), value) for labels, value, _ in samples] == [
        ("load_seconds_bucket", "0.005", 1.0),
        ("load_seconds_bucket", "1.0", 3.0),
        ("load_seconds_bucket", "1e+06", 6.0),
        ("load_seconds_bucket", "+Inf", 10.0),
        ("load_seconds_sum", None, 12.5),
        ("load_seconds_count", None, 10.0),
    ]
    assert {at_ms for _, _, at_ms in samples} == {NOW_MS}
    assert all(labels["plan"] == "pro" for labels, _, _ in samples)
    assert sealed.widths.tolist() == [len(samples)]


def test_a_bucket_that_lacks_what_lower_ones_have_shows_as_many(sink: RemoteWrite, series: Rows) -> None:
    sealed = series.sample(series.of(HISTOGRAM), NOW_MS, 22.0, [6, 2, 2, -4, 6])
    assert [value for _, value, _ in read(sink.encode(sealed))] == [2.0, 4.0, 4.0, 6.0, 22.0, 6.0]


def test_a_native_histogram_is_one_series_with_spans_and_deltas(sink: RemoteWrite, series: Rows) -> None:
    buckets = NativeBuckets()
    buckets.observe([-2.0, 0.0, 0.0, 1.0, 1.05, 1.05, 4.0])
    sealed = series.sample(series.of(NATIVE, plan="pro"), NOW_MS, 5.1, [7, *buckets.packed()])
    body = sink.encode(sealed)
    assert read(body) == []
    labels = {"__name__": "wait_seconds", "plan": "pro", **IDENTITY}
    assert read_histograms(body) == [(labels, NOW_MS, 7, 5.1, 3, 2, {0: 1, 1: 2, 16: 1}, {8: 1})]
    assert sealed.widths.tolist() == [1]


def test_a_native_histogram_begins_empty_and_ends_with_a_stale_sum(sink: RemoteWrite, series: Rows) -> None:
    row = series.of(NATIVE)
    zero = Samples.zeros(series.table, np.array([row]), np.array([NOW_MS]))
    [first, last] = read_histograms(sink.encode(series.joined(zero, series.sample(row, NOW_MS + 1, stale=True))))
    assert (first.observations, first.sum, first.positive, first.at_ms) == (0, 0.0, {}, NOW_MS)
    assert (bits(last.sum), last.observations, last.at_ms) == (STALE_BITS, 0, NOW_MS + 1)


def test_the_zero_of_a_native_histogram_has_the_resolution_of_its_value(series: Rows) -> None:
    row = series.of(NATIVE)
    series.table.counts[row] = np.array([5, 1, 5, 0])
    zero = Samples.zeros(series.table, np.array([row]), np.array([NOW_MS]))
    assert zero.counts[0].tolist() == [0, 1, 0, 0]


def test_exemplars_follow_the_samples_of_their_series(sink: RemoteWrite, series: Rows) -> None:
    counter, classic, native = series.of(COUNTER), series.of(HISTOGRAM), series.of(NATIVE)
    samples = series.joined(
        series.sample(counter, NOW_MS, 1.0),
        series.sample(classic, NOW_MS, 1.0, [1, 0, 1, 0, 0]),
        series.sample(native, NOW_MS),
        series.sample(series.of(GAUGE), NOW_MS, stale=True),
    )
    span = Span(b"t" * 16, b"s" * 8)
    rows = (counter, classic, native, series.of(GAUGE), series.of(COUNTER, plan="pro"))
    shown = samples.with_exemplars({row: Exemplar(0.5, span, NOW_MS - 7) for row in rows})
    body = sink.encode(shown)
    labels = {"trace_id": "74" * 16, "span_id": "73" * 8}
    assert [(of["__name__"], of.get("le"), *rest) for of, *rest in read_exemplars(body)] == [
        ("orders_total", None, labels, 0.5, NOW_MS - 7),
        ("load_seconds_bucket", "1.0", labels, 0.5, NOW_MS - 7),
        ("wait_seconds", None, labels, 0.5, NOW_MS - 7),
    ]
    assert len(read(body)) == len(read(sink.encode(samples))) == 8


def test_a_summary_is_sum_and_count(sink: RemoteWrite, series: Rows) -> None:
    sealed = series.sample(series.of(SUMMARY), NOW_MS, 12.5, [10])
    samples = read(sink.encode(sealed))
    assert [(labels["__name__"], value) for labels, value, _ in samples] == [
        ("size_bytes_sum", 12.5),
        ("size_bytes_count", 10.0),
    ]
    assert sealed.widths.tolist() == [2]


def test_a_summary_has_its_quantiles_or_nan_where_nothing_was_observed_lately(sink: RemoteWrite, series: Rows) -> None:
    row = series.of(OBSERVED)
    samples = series.joined(
        series.sample(row, NOW_MS, 12.5, [10], quantiles=[1.5, -2.0]), series.sample(row, NOW_MS + 1, 12.5, [10])
    )
    assert samples.widths.tolist() == [4, 4]
    written = read(sink.encode(samples))
    names = [(labels["__name__"], labels.get("quantile")) for labels, _, _ in written]
    assert names == 2 * [("took_sum", None), ("took_count", None), ("took", "0.5"), ("took", "0.999")]
    assert [value for _, value, _ in written[:4]] == [12.5, 10.0, 1.5, -2.0]
    assert [math.isnan(value) for _, value, _ in written[4:]] == [False, False, True, True]
    assert STALE_BITS not in [bits(value) for _, value, _ in written]


def test_series_of_all_types_travel_together_each_in_its_order(sink: RemoteWrite, series: Rows) -> None:
    counter, summary = series.of(COUNTER), series.of(SUMMARY)
    samples = read(
        sink.encode(
            series.joined(
                series.sample(summary, NOW_MS, 1.0, [2]),
                series.sample(counter, NOW_MS, 3.0),
                series.sample(summary, NOW_MS + 1, 4.0, [5]),
                series.sample(counter, NOW_MS + 1, 6.0),
            )
        )
    )
    of: dict[str, list[tuple[float, int]]] = {"orders_total": [], "size_bytes_sum": [], "size_bytes_count": []}
    for labels, value, at_ms in samples:
        of[labels["__name__"]].append((value, at_ms - NOW_MS))
    assert of == {
        "orders_total": [(3.0, 0), (6.0, 1)],
        "size_bytes_sum": [(1.0, 0), (4.0, 1)],
        "size_bytes_count": [(2.0, 0), (5.0, 1)],
    }


@pytest.mark.parametrize("of", [COUNTER, GAUGE, HISTOGRAM, SUMMARY, OBSERVED])
def test_a_stale_marker_ends_every_series_of_a_label_set(sink: RemoteWrite, series: Rows, of: Definition) -> None:
    sealed = series.sample(series.of(of), NOW_MS, stale=True)
    samples = read(sink.encode(sealed))
    assert sealed.widths.tolist() == [len(samples)]
    assert {bits(value) for _, value, _ in samples} == {STALE_BITS}


def test_nobody_can_stand_under_another_tenants_name(sink: RemoteWrite, series: Rows) -> None:
    forged = series.of(COUNTER, tenant_id="x", project_id="y", __name__="z")
    [(labels, _, _)] = read(sink.encode(series.sample(forged, NOW_MS, 1.0)))
    assert labels == {"__name__": "orders_total", **IDENTITY}
    forged = series.of(HISTOGRAM, le="5")
    samples = read(sink.encode(series.sample(forged, NOW_MS)))
    assert [labels.get("le") for labels, _, _ in samples][:4] == ["0.005", "1.0", "1e+06", "+Inf"]


names = st.text("abcxyz_ABC019", min_size=1, max_size=8).filter(lambda name: not name[0].isdigit())
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=200)


@given(
    st.lists(
        st.tuples(
            st.dictionaries(names, texts, max_size=16),
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(0, 2**42 - 1),
        ),
        max_size=10,
    )
)
def test_any_labels_and_values_are_read_back(parts: list[tuple[dict[str, str], float, int]]) -> None:
    sink = RemoteWrite(session=None, url=str)  # type: ignore[arg-type]  # nothing is sent
    series = Rows()
    samples = [series.sample(series.of(COUNTER, **labels), at_ms, value) for labels, value, at_ms in parts]
    assert read(sink.encode(series.joined(*samples))) == [
        ({**labels, "__name__": "orders_total", **IDENTITY}, value, at_ms) for labels, value, at_ms in parts
    ]


def test_encoding_again_gives_the_same_bytes(sink: RemoteWrite, series: Rows) -> None:
    sample = series.sample(series.of(HISTOGRAM), NOW_MS, 1.0, [1, 1, 0, 0, 0])
    assert sink.encode(sample) == sink.encode(sample)


def test_the_probe_is_a_sample_without_an_owner(sink: RemoteWrite) -> None:
    assert read(sink.encode_probe(NOW_MS)) == [({"__name__": "pulsegate_sink_probe"}, 1.0, NOW_MS)]


def golden_bounds() -> list[tuple[float, str]]:
    lines = GOLDEN_BOUNDS.read_text().splitlines()
    pairs = [line.split() for line in lines if line and not line.startswith("#")]
    return [(float(bound), written) for bound, written in pairs]


@pytest.mark.parametrize(("bound", "written"), golden_bounds())
def test_bounds_are_openmetrics_canonical_numbers(bound: float, written: str) -> None:
    assert format_bound(bound) == written


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_bound_reads_back_as_itself(bound: float) -> None:
    written = format_bound(bound)
    assert float(written) == bound
    assert "." in written or "e" in written
