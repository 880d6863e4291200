"""Names as Prometheus and OpenMetrics want them, and the name to use instead where one is not so.

Sources: prometheus.io/docs/practices/naming, the OpenMetrics 1.0 specification, and `promtool check metrics`. The
suffixes of the series that a histogram or summary `x` exposes (`x_bucket`, `x_sum`, `x_count`) are refused at the end
of every name, so that the series of two definitions of a project can never meet.
"""

import re
import unicodedata
from collections.abc import Mapping

from services.config.domain import MetricType

#: Bytes, which are characters here: names are ASCII.
MOST_NAME_LENGTH = 200
MOST_LABEL_NAME_LENGTH = 64
MOST_UNIT_LENGTH = 64

#: Set by Pulsegate or by Prometheus on every series they concern.
RESERVED_LABELS = frozenset({"tenant_id", "project_id", "le", "quantile"})

_WELL_FORMED = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_UNIT = re.compile(r"[a-z][a-z0-9_]*")

_TOTAL = "_total"
_RESERVED_SUFFIXES: Mapping[str, str] = {
    "_bucket": "is how a histogram's series end",
    "_sum": "is how a series of a histogram or summary ends",
    "_count": "is how a series of a histogram or summary ends",
    "_created": "is how OpenMetrics marks times of creation, which are ignored",
}

_ENDINGS = (_TOTAL, *_RESERVED_SUFFIXES)

#: How much of a name a suggestion keeps, so that a unit and `_total` still fit behind it.
_KEPT_LENGTH = 110
#: So many characters of a name that is not valid are looked at: normalising takes time by the square of the length.
_MOST_CLEANED = 500

#: Units that a name must not end in, by the base unit to use instead.
_UNITS_BY_BASE: Mapping[str, str] = {
    "seconds": "sec secs millisecond milliseconds millis msec msecs ms microsecond microseconds micros usec nanosecond"
    " nanoseconds nanos nsec minutes mins hours hrs days weeks",
    "bytes": "bits kilobits megabits gigabits kilobytes kibibytes kb kib megabytes mebibytes mb mib gigabytes"
    " gibibytes gb gib terabytes tebibytes tb tib",
    "ratio": "percent percents percentage percentages pct",
    "celsius": "fahrenheit",
    "meters": "metres millimeters centimeters kilometers km miles feet yards",
    "volts": "millivolts kilovolts",
    "amperes": "amps milliamperes",
    "joules": "kilojoules megajoules kwh watt_hours kilowatt_hours",
    "grams": "milligrams kilograms kg",
}

#: Spellings that are units where a unit is asked for, but may be something else in a name (`visits_us`, `water_meter`).
_SPELLINGS_BY_BASE: Mapping[str, str] = {
    "seconds": "second s us µs ns minute min hour h day d week",
    "bytes": "byte b bit",
    "ratio": "%",
    "celsius": "c °c f °f",
    "meters": "meter metre m mm cm mile foot yard inch inches",
    "volts": "volt v mv kv",
    "amperes": "ampere a ma",
    "joules": "joule j kj mj",
    "grams": "gram g mg pounds ounces",
}


def _by_unit(units_by_base: Mapping[str, str]) -> dict[str, str]:
    return {unit: base for base, units in units_by_base.items() for unit in units.split()}


_BASE_OF_ENDING = _by_unit(_UNITS_BY_BASE)
_BASE_OF_UNIT = {**_BASE_OF_ENDING, **_by_unit(_SPELLINGS_BY_BASE)}


def unit_fault(unit: str) -> str | None:
    """What is wrong with a unit, in words for its author; None where nothing is."""
    base = _BASE_OF_UNIT.get(unit.lower())
    if base is not None:
        return f'is not a base unit; use "{base}"'
    if len(unit) > MOST_UNIT_LENGTH or not _UNIT.fullmatch(unit) or f"_{unit}".endswith(_ENDINGS):
        return f'must be a word in small letters, such as "seconds" or "requests", at most {MOST_UNIT_LENGTH} long'
    used, base = _unit_at_the_end(unit)
    return f'must end in the base unit "{base}" instead of {used}' if used else None


def name_fault(name: str, metric_type: MetricType | None, unit: str) -> str | None:
    """What is wrong with a metric's name, with a name to use instead; None where nothing is."""
    faults = [fault for fault in _name_faults(name, metric_type, unit) if fault]
    if not faults:
        return None
    return f'{", and ".join(faults)}; use "{suggested_name(name, metric_type, unit)}"'


def _name_faults(name: str, metric_type: MetricType | None, unit: str) -> list[str | None]:
    if ":" in name:
        return ["must have no colons, which are for recording rules"]
    if not _WELL_FORMED.fullmatch(name):
        return ["must be letters, digits and underscores and not begin with a digit"]
    faults = [
        "must not begin with two underscores, which Prometheus keeps for itself" if name.startswith("__") else None,
        f"must be at most {MOST_NAME_LENGTH} long" if len(name) > MOST_NAME_LENGTH else None,
        _total_fault(name, metric_type),
    ]
    stem = name.removesuffix(_TOTAL)
    faults += [
        f"must not end in {suffix}, which {why}" for suffix, why in _RESERVED_SUFFIXES.items() if name.endswith(suffix)
    ]
    if not stem.strip("_"):
        return [*faults, "must say what is measured"]
    used, base = _unit_at_the_end(stem)
    if used:
        return [*faults, f"must be in the base unit {base} instead of {used}"]
    if unit and unit_fault(unit) is None and not f"_{stem}".endswith(f"_{unit}"):
        return [*faults, f'must name the unit at its end, as in "_{unit}{_total(metric_type)}"']
    return faults


def _total_fault(name: str, metric_type: MetricType | None) -> str | None:
    if metric_type is MetricType.COUNTER and not name.endswith(_TOTAL):
        return "must end in _total, as every counter's does"
    if metric_type is not None and metric_type is not MetricType.COUNTER and name.endswith(_TOTAL):
        return f"must not end in _total, which is for counters (this is a {metric_type})"
    return None


def suggested_name(name: str, metric_type: MetricType | None, unit: str = "") -> str:
    """A valid name that is as close as can be to the one given."""
    stem = _without_endings(_cleaned(name)[:_KEPT_LENGTH].rstrip("_"))
    if not stem or stem[0].isdigit():
        stem = f"metric_{stem}".rstrip("_")
    used, base = _unit_at_the_end(stem)
    if used:
        stem = f"{stem.removesuffix(used)}{base}"
    wanted = _BASE_OF_UNIT.get(unit.lower(), unit)
    ending = f"_{wanted}" if wanted and unit_fault(wanted) is None else ""
    front = _without_endings(f"_{stem}".removesuffix(ending).strip("_"))
    return (front + ending).lstrip("_") + _total(metric_type)


def _plain(name: str) -> str:
    """Letters without their accents, where they have any."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))


def _cleaned(name: str) -> str:
    return re.sub(r"_{2,}", "_", re.sub(r"[^a-zA-Z0-9_]+", "_", _plain(name[:_MOST_CLEANED]))).strip("_")


def _without_endings(stem: str) -> str:
    while stem.lower().endswith(_ENDINGS):
        stem = stem[: stem.rindex("_")].rstrip("_")
    return "" if f"_{stem.lower()}" == _TOTAL else stem


def _total(metric_type: MetricType | None) -> str:
    return _TOTAL if metric_type is MetricType.COUNTER else ""


def _unit_at_the_end(stem: str) -> tuple[str, str]:
    """The unit that a name wrongly ends in, and the base unit to use; both empty where it does not."""
    words = stem.split("_")
    for length in (2, 1):
        used = "_".join(words[-length:])
        if len(words) > length and words[-length - 1] != "per" and used.lower() in _BASE_OF_ENDING:
            return used, _BASE_OF_ENDING[used.lower()]
    return "", ""


def label_name_fault(name: str) -> str | None:
    """What is wrong with a label's name, with a name to use instead; None where nothing is."""
    if name in RESERVED_LABELS:
        return f'is set by Pulsegate itself; use "metric_{name}"'
    if name.startswith("__"):
        fault = "must not begin with two underscores, which Prometheus keeps for itself"
    elif not _WELL_FORMED.fullmatch(name):
        fault = "must be letters, digits and underscores and not begin with a digit"
    elif len(name) > MOST_LABEL_NAME_LENGTH:
        fault = f"must be at most {MOST_LABEL_NAME_LENGTH} long"
    else:
        return None
    return f'{fault}; use "{suggested_label_name(name)}"'


def suggested_label_name(name: str) -> str:
    """A valid label name that is as close as can be to the one given."""
    cleaned = _cleaned(name)
    if not cleaned or cleaned[0].isdigit() or cleaned in RESERVED_LABELS:
        cleaned = f"label_{cleaned}"
    return cleaned[:MOST_LABEL_NAME_LENGTH].rstrip("_")
