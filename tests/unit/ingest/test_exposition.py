"""Text exposition says, to whoever parses it, what it was given."""

from prometheus_client.parser import text_string_to_metric_families

from services.ingest.domain import MetricType
from services.ingest.sinks import exposition
from services.ingest.sinks.exposition import ExposedSeries


def parsed(text: str) -> list[tuple[str, str, dict[str, str], float]]:
    """Type, sample name, labels and value of each sample."""
    return [
        (family.type, sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def test_labels_survive_whatever_is_in_them() -> None:
    labels = {"a": 'quo"te', "b": "back\\slash", "c": "new\nline", "d": "\\n", "e": "é \U0001f600", "f": ""}
    pairs = tuple(text for pair in {"__name__": "depth", **labels}.items() for text in pair)
    series = ExposedSeries(MetricType.GAUGE, [exposition.head(pairs, ())], [1.0])
    assert parsed(exposition.family("depth", [series])) == [("gauge", "depth", labels, 1.0)]


def test_values_survive_to_the_last_bit() -> None:
    values = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, 2.0**53 - 1, -0.5]
    series = [
        ExposedSeries(MetricType.GAUGE, [exposition.head(("__name__", "depth", "n", str(n)), ())], [value])
        for n, value in enumerate(values)
    ]
    assert [value for *_, value in parsed(exposition.family("depth", series))] == values


def test_a_histogram_is_one_family_and_labels_of_its_group_are_left_out() -> None:
    heads = [
        exposition.head(("__name__", name, "job", "shop", "plan", "pro", *le), {"job"})
        for name, le in (("s_bucket", ("le", "+Inf")), ("s_sum", ()), ("s_count", ()))
    ]
    text = exposition.family("s", [ExposedSeries(MetricType.HISTOGRAM, heads, [2.0, 1.5, 2.0])])
    assert parsed(text) == [
        ("histogram", "s_bucket", {"plan": "pro", "le": "+Inf"}, 2.0),
        ("histogram", "s_sum", {"plan": "pro"}, 1.5),
        ("histogram", "s_count", {"plan": "pro"}, 2.0),
    ]
