"""From a draft to a valid definition: every fault at once, defaults filled in."""

import math
from collections.abc import Callable, Iterator, Sequence

from chassis.errors import Invalid
from chassis.patterns import Pattern, PatternError
from services.config import naming
from services.config.domain import GaugeMerge, Label, MetricDraft, MetricSpec, MetricType

MOST_HELP_LENGTH = 1_000
MOST_LABELS = 16
MOST_VALUES = 1_000
MOST_VALUE_BYTES = 200
MOST_DISTINCT = 10_000
#: Of the programs of a definition's patterns together: receivers may compile them anew for each metric.
MOST_PATTERN_STEPS = 2_000
MOST_BUCKETS = 100
MOST_OBJECTIVES = 20

#: What series over a budget are folded into; no client may send it.
OVERFLOW_VALUE = "__other__"

#: Those of Prometheus' own client libraries: for requests measured in seconds.
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DEFAULT_OBJECTIVES = (0.5, 0.9, 0.99)
DEFAULT_GAUGE_MERGE = GaugeMerge.LAST

#: A member of the request, as its author wrote it (`labels[2].name`), and what is wrong with it.
Fault = tuple[str, str]


def validated(draft: MetricDraft) -> MetricSpec:
    """The definition with its defaults filled in. Raises Invalid with every fault, by member."""
    found = faults(draft)
    if found or draft.type is None:
        raise Invalid.fields(found)
    return MetricSpec(
        name=draft.name,
        type=draft.type,
        unit=draft.unit,
        help=draft.help,
        labels=draft.labels,
        buckets=_or_default(
            draft.buckets, DEFAULT_BUCKETS, draft.type is MetricType.HISTOGRAM and not draft.native_histogram
        ),
        objectives=_or_default(draft.objectives, DEFAULT_OBJECTIVES, draft.type is MetricType.SUMMARY),
        gauge_merge=(draft.gauge_merge or DEFAULT_GAUGE_MERGE) if draft.type is MetricType.GAUGE else None,
        native_histogram=draft.native_histogram,
    )


def faults(draft: MetricDraft) -> dict[str, str]:
    """All that is wrong with a definition, by member, whatever else the project has."""
    return dict(_faults(draft))


def _or_default(given: tuple[float, ...], default: tuple[float, ...], applies: bool) -> tuple[float, ...]:
    if not applies:
        return ()
    return tuple(number + 0.0 for number in given) or default  # -0.0 becomes 0.0


def _faults(draft: MetricDraft) -> Iterator[Fault]:
    if draft.type is None:
        yield "type", f"must be one of {', '.join(MetricType)}"
    if fault := naming.name_fault(draft.name, draft.type, draft.unit):
        yield "name", fault
    if draft.unit and (fault := naming.unit_fault(draft.unit)):
        yield "unit", fault
    yield from _help_faults(draft.help)
    yield from _labels_faults(draft.labels)
    yield from _buckets_faults(draft)
    yield from _objectives_faults(draft)
    if draft.native_histogram and draft.type not in (MetricType.HISTOGRAM, None):
        yield "nativeHistogram", "is only for histograms"
    if draft.gauge_merge is not None and draft.type not in (MetricType.GAUGE, None):
        yield "gaugeMerge", "is only for gauges"


def _help_faults(text: str) -> Iterator[Fault]:
    if not text.strip():
        yield "help", "must say what the metric measures"
    elif len(text) > MOST_HELP_LENGTH:
        yield "help", f"must be at most {MOST_HELP_LENGTH} characters"
    elif "\0" in text:
        yield "help", "must not hold NUL"


def _labels_faults(labels: Sequence[Label]) -> Iterator[Fault]:
    if len(labels) > MOST_LABELS:
        yield "labels", f"must be at most {MOST_LABELS}"
        return
    seen: set[str] = set()
    for index, label in enumerate(labels):
        path = f"labels[{index}]"
        if fault := naming.label_name_fault(label.name):
            yield f"{path}.name", fault
        elif label.name in seen:
            yield f"{path}.name", f'is given twice: "{label.name}"'
        seen.add(label.name)
        yield from _values_faults(path, label)
        yield from _pattern_faults(path, label)
        if not 0 <= label.max_distinct <= MOST_DISTINCT:
            yield f"{path}.maxDistinct", f"must be from 0 (no limit of its own) to {MOST_DISTINCT}"
    if (steps := sum(_steps(label.pattern) for label in labels if label.pattern)) > MOST_PATTERN_STEPS:
        yield "labels", f"must have simpler patterns: they come to {steps} steps, and may to {MOST_PATTERN_STEPS}"


def _values_faults(path: str, label: Label) -> Iterator[Fault]:
    if len(label.values) > MOST_VALUES:
        yield f"{path}.values", f"must be at most {MOST_VALUES}; use a pattern instead"
        return
    seen: set[str] = set()
    for index, value in enumerate(label.values):
        fault = _value_fault(value) or (f'is given twice: "{value}"' if value in seen else None)
        if fault:
            yield f"{path}.values[{index}]", fault
        seen.add(value)


def _value_fault(value: str) -> str | None:
    if not value:
        return "must not be empty: to Prometheus an empty label is no label"
    if len(value.encode()) > MOST_VALUE_BYTES:
        return f"must be at most {MOST_VALUE_BYTES} bytes"
    if value == OVERFLOW_VALUE:
        return f"must not be {OVERFLOW_VALUE}, which stands for what is over a limit"
    if "\0" in value:
        return "must not hold NUL"
    return None


def _pattern_faults(path: str, label: Label) -> Iterator[Fault]:
    if not label.pattern:
        return
    if label.values:
        yield f"{path}.pattern", "must not be given together with values"
    if "\0" in label.pattern:
        yield f"{path}.pattern", "must not hold NUL"
        return
    try:
        Pattern(label.pattern)
    except PatternError as error:
        yield f"{path}.pattern", str(error)


def _steps(pattern: str) -> int:
    try:
        return Pattern(pattern).steps
    except PatternError:  # which is told of the label
        return 0


def _buckets_faults(draft: MetricDraft) -> Iterator[Fault]:
    if not draft.buckets:
        return
    if draft.type not in (MetricType.HISTOGRAM, None):
        yield "buckets", "are only for histograms"
    elif draft.native_histogram:
        yield "buckets", "are not given for a native histogram, which makes its own"
    elif len(draft.buckets) > MOST_BUCKETS:
        yield "buckets", f"must be at most {MOST_BUCKETS}"
    else:
        yield from _ascending_faults("buckets", draft.buckets, math.isfinite, "be finite")


def _objectives_faults(draft: MetricDraft) -> Iterator[Fault]:
    if not draft.objectives:
        return
    if draft.type not in (MetricType.SUMMARY, None):
        yield "objectives", "are only for summaries"
    elif len(draft.objectives) > MOST_OBJECTIVES:
        yield "objectives", f"must be at most {MOST_OBJECTIVES}"
    else:
        yield from _ascending_faults("objectives", draft.objectives, lambda quantile: 0 < quantile < 1, "lie in (0, 1)")


def _ascending_faults(
    path: str, numbers: Sequence[float], allowed: Callable[[float], bool], must: str
) -> Iterator[Fault]:
    for index, number in enumerate(numbers):
        if not allowed(number):
            yield f"{path}[{index}]", f"must {must}"
        elif index and not numbers[index - 1] < number:
            yield f"{path}[{index}]", "must be greater than the one before it"
