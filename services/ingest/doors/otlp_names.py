"""Names of OpenTelemetry as Prometheus has them.

Source: "Prometheus and OpenMetrics Compatibility" in the OpenTelemetry specification: a metric's name gets its unit
and, for a monotonic sum, `_total` at the end; other characters become underscores, several of which become one.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from services.ingest.doors.names import as_counter

_SEPARATORS = re.compile(r"[^a-zA-Z0-9]+")
_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")

_UNITS: Mapping[str, str] = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes", "TiBy": "tibibytes",
    "KBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes",
    "m": "meters", "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams",
    "Cel": "celsius", "Hz": "hertz", "1": "", "%": "percent",
}  # fmt: skip
_PER: Mapping[str, str] = {
    "s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year",
}  # fmt: skip


@lru_cache(maxsize=16_384)
def metric_names(name: str, unit: str, *, monotonic: bool, gauge: bool) -> Sequence[str]:
    """What a metric may be called in its definition: with its unit, as the specification has it, and without. Name and
    unit are short.

    The second is for units such as milliseconds, which no definition may end in.
    """
    words = [word for word in _SEPARATORS.split(name) if word]
    plain = _joined(words, monotonic=monotonic)
    if unit == "1" and gauge:
        with_unit = _joined([*(word for word in words if word != "ratio"), "ratio"], monotonic=False)
    else:
        with_unit = _joined(words + _unit_words(unit, words), monotonic=monotonic)
    return tuple(dict.fromkeys((with_unit, plain)))


def _joined(words: Sequence[str], *, monotonic: bool) -> str:
    if monotonic:
        words = [word for word in words if word != "total"]
    found = "_".join(words)
    found = f"_{found}" if found[:1].isdigit() else found
    return as_counter(found) if monotonic else found


def _unit_words(unit: str, words: Sequence[str]) -> list[str]:
    """What a unit adds to a name that does not say it already. Parts in braces are annotations."""
    main, _, per = unit.partition("/")
    found = [_unit_word(main.strip(), _UNITS)]
    if per_word := _unit_word(per.strip(), _PER):
        found.append(f"per_{per_word}")
    return [word for word in found if word and word not in words and not _ends_in(words, word)]


def _ends_in(words: Sequence[str], unit: str) -> bool:
    return "_".join(words).endswith(f"_{unit}")


def _unit_word(unit: str, known: Mapping[str, str]) -> str:
    if not unit or "{" in unit or "}" in unit:
        return ""
    return known[unit] if unit in known else _SEPARATORS.sub("_", unit).strip("_")


@lru_cache(maxsize=16_384)
def label_name(attribute: str) -> str:
    """The name of an attribute, which is short, as a label's."""
    found = re.sub(r"_{2,}", "_", _NOT_IN_LABELS.sub("_", attribute))
    return f"key_{found}" if found[:1].isdigit() else found
