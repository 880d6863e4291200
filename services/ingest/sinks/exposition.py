"""Prometheus' text exposition format 0.0.4, without timestamps.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from services.ingest.domain import LabelPairs, MetricType

#: As they stand in a TYPE line.
_TYPES = {
    MetricType.COUNTER: "counter",
    MetricType.GAUGE: "gauge",
    MetricType.HISTOGRAM: "histogram",
    MetricType.SUMMARY: "summary",
}
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


@dataclass(slots=True)
class ExposedSeries:
    """A series as its lines: one, or all of a histogram's or summary's."""

    type: MetricType
    #: What stands before each value.
    heads: Sequence[str]
    values: Sequence[float]


def head(labels: LabelPairs, without: Collection[str]) -> str:
    """A line up to its value. `labels` has the name as `__name__`; those of `without` are left out."""
    named = dict(zip(labels[::2], labels[1::2], strict=True))
    name = named.pop("__name__")
    pairs = ",".join(f'{label}="{value.translate(_ESCAPES)}"' for label, value in named.items() if label not in without)
    return f"{name}{{{pairs}}}"


def family(name: str, series: Iterable[ExposedSeries]) -> str:
    """All series of a name. There is at least one, and they are of one type."""
    lines = [""]
    for each in series:
        lines[0] = f"# TYPE {name} {_TYPES[each.type]}"
        lines += [f"{head} {value!r}" for head, value in zip(each.heads, each.values, strict=True)]
    return "\n".join(lines) + "\n"
