"""StatsD lines: `name:value|type|@rate|#tag:value,…|Ttime`, as StatsD and DogStatsD have them.

Counters (`c`) are divided by their sampling rate. Timings (`ms`, in seconds from here on), `h` and `d` are observations
of a histogram or summary, each of which stands for 1 / rate: where that is no whole number, for the one below and the
one above it in turns, so that it is right on the average and, over a request, to the unit. A gauge (`g`) is set; one
with a sign changes what the same request has set before, and is refused where it has not: nobody here knows the level
that it is to change. Its time is the line's, where it has one, else that of the level it changes; what is added up
counts when it arrives. Sets, events
and service checks are refused. Several values in a line (`1:2:3`) are taken as DogStatsD does, in their order.
"""

import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from services.ingest.domain import (
    MOST_METRICS_IN_BATCH,
    MOST_NAME_LENGTH,
    MOST_OBSERVATIONS,
    MOST_POINTS_IN_REQUEST,
    Fault,
)
from services.ingest.doors.names import NAME_TOO_LONG, as_counter, cleaned, clipped
from services.ingest.errors import BatchEmpty, BatchTooLarge
from services.ingest.points import COUNTERS, DISTRIBUTIONS, GAUGES, Observations, Point

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_LONGEST_NUMBER = 400
#: Unix seconds.
_TIME = re.compile(r"\d{1,15}", re.ASCII)
_LEAST_RATE = 1e-6
#: Of a line, besides its name and values; what comes after them is not looked at.
_MOST_FIELDS = 16
#: Of a line: far more than a definition has labels.
_MOST_TAGS = 64
#: Of all lines together: as many as fit into a batch of `POST /api/v1/metrics`.
_MOST_VALUES_IN_REQUEST = MOST_METRICS_IN_BATCH * MOST_OBSERVATIONS
#: Characters of tags that are worth remembering.
_LONGEST_REMEMBERED = 512
_NO_RATE = Fault("METRIC_MALFORMED", f"A sampling rate is from {_LEAST_RATE:g} to 1, as in @0.1.")
_NO_TIME = Fault("METRIC_MALFORMED", "A timestamp is whole seconds since 1970, as in T1656581400.")
_SHAPE = "A line is name:value|type, and maybe |@rate and |#tag:value,tag:value."


class _Level(NamedTuple):
    value: float
    #: Unix milliseconds; None is when it arrives.
    taken_ms: float | None


@dataclass(frozen=True, slots=True)
class _SoFar:
    """What lines of the request say to those after them, by name and tags."""

    #: The level of each gauge.
    levels: dict[tuple[str, str], _Level] = field(default_factory=dict)
    #: Below 1: what observations, sampled at a rate, stand for besides the whole number that is counted.
    owed: dict[tuple[str, str], float] = field(default_factory=dict)


def decode(body: bytes) -> Iterator[Point | Fault]:
    """A point for each line that is not blank. Raises BatchEmpty, BatchTooLarge."""
    if body.count(b"\n") > MOST_POINTS_IN_REQUEST:
        raise BatchTooLarge(f"A request takes at most {MOST_POINTS_IN_REQUEST} lines.")
    lines = [line for line in body.split(b"\n") if line.strip()]
    if not lines:
        raise BatchEmpty("There is no line in this request.")
    if sum([line.partition(b"|")[0].count(b":") for line in lines]) > _MOST_VALUES_IN_REQUEST:
        raise BatchTooLarge(f"The lines of a request have at most {_MOST_VALUES_IN_REQUEST} values.")
    so_far = _SoFar()
    for line in lines:
        yield _decode_line(line, so_far)


def _decode_line(line: bytes, so_far: _SoFar) -> Point | Fault:
    try:
        text = line.decode().rstrip("\r")
    except UnicodeDecodeError:
        return Fault("METRIC_MALFORMED", "The line is not UTF-8.")
    head, *fields = text.split("|", _MOST_FIELDS)
    name, colon, sent = head.partition(":")
    if not fields or not name or not colon or name.startswith("_e{"):
        return Fault("METRIC_MALFORMED", _SHAPE)
    if len(name) > MOST_NAME_LENGTH:
        return NAME_TOO_LONG
    values = _numbers(sent)
    if isinstance(values, Fault):
        return values
    kind, *options = fields
    return _point(kind, name, values, options, so_far)


def _numbers(sent: str) -> list[str] | Fault:
    texts = sent.split(":", MOST_OBSERVATIONS)
    if len(texts) > MOST_OBSERVATIONS:
        return Fault("METRIC_MALFORMED", f"A line has at most {MOST_OBSERVATIONS} values.")
    for text in texts:
        if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
            if text.lower().strip("+-") in ("nan", "inf", "infinity"):
                return Fault("VALUE_NOT_FINITE", "The value must be a finite number.")
            return Fault("METRIC_MALFORMED", "The value must be a number.")
    return texts


def _point(kind: str, name: str, values: list[str], options: Sequence[str], so_far: _SoFar) -> Point | Fault:
    understood = _options(options)
    if isinstance(understood, Fault):
        return understood
    tags, rate, taken_ms = understood
    if tags.count(",") >= _MOST_TAGS:
        return Fault("METRIC_MALFORMED", f"A line has at most {_MOST_TAGS} tags.")
    labels, stem = _labels(tags), cleaned(name)
    if kind == "c":
        increment = sum(map(float, values)) / rate
        return Point(names=(as_counter(stem),), labels=labels, types=COUNTERS, value=increment)
    if kind == "g":
        level = _level(values, taken_ms, (stem, tags), so_far.levels)
        if isinstance(level, Fault):
            return level
        return Point(names=(stem,), labels=labels, types=GAUGES, value=level.value, timestamp_ms=level.taken_ms)
    if kind in ("ms", "h", "d"):
        scale = 1000.0 if kind == "ms" else 1.0
        weight = _weight(rate, (stem, tags), so_far.owed)
        observed = Observations([float(value) / scale for value in values], weight)
        names = (stem, f"{stem}_seconds") if kind == "ms" else (stem,)
        return Point(names=names, labels=labels, types=DISTRIBUTIONS, value=observed)
    if kind == "s":
        return Fault("METRIC_TYPE_MISMATCH", "Sets (s) cannot be added up over many senders.")
    return Fault("METRIC_MALFORMED", "The type of a line is c, g, ms, h or d.")


def _options(options: Sequence[str]) -> tuple[str, float, float | None] | Fault:
    """The tags as sent, the sampling rate, and the time in milliseconds, None where the line has none. What else there
    is (DogStatsD's container, for one) says nothing about the value."""
    tags, rate, taken_ms = "", 1.0, None
    for option in options:
        if option.startswith("#"):
            tags = option[1:]
        elif option.startswith("@"):
            text = option[1:]
            if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text) or not _LEAST_RATE <= float(text) <= 1:
                return _NO_RATE
            rate = float(text)
        elif option.startswith("T"):
            if not _TIME.fullmatch(option, 1):
                return _NO_TIME
            taken_ms = float(option[1:]) * 1000
    return tags, rate, taken_ms


@lru_cache(maxsize=4096)
def _remembered_labels(tags: str) -> Mapping[str, str]:
    return _parse_tags(tags)


def _labels(tags: str) -> Mapping[str, str]:
    """Labels by name; those that say the same are one object. A tag without a value is `true`."""
    return _remembered_labels(tags) if len(tags) <= _LONGEST_REMEMBERED else _parse_tags(tags)


def _parse_tags(tags: str) -> Mapping[str, str]:
    pairs = (tag.partition(":") for tag in tags.split(",") if tag)
    return {cleaned(clipped(name)): clipped(value) if colon else "true" for name, colon, value in pairs}


def _weight(rate: float, series: tuple[str, str], owed: dict[tuple[str, str], float]) -> int:
    """How often an observation counts: 1 / rate, or one of the whole numbers next to it.

    A request begins at random, so that many small ones do not all round alike.
    """
    stands_for = 1 / rate
    if math.isclose(stands_for, round(stands_for), rel_tol=1e-9):
        return round(stands_for)
    due = owed[series] if series in owed else random.random()  # noqa: S311
    owed[series], weight = math.modf(due + stands_for)
    return int(weight)


def _level(
    values: Sequence[str], taken_ms: float | None, gauge: tuple[str, str], levels: dict[tuple[str, str], _Level]
) -> _Level | Fault:
    """What the last of the values leaves; the ones before it are as if they were lines of their own."""
    for text in values:
        if text[0] not in "+-":
            levels[gauge] = _Level(float(text), taken_ms)
        elif gauge in levels:
            before = levels[gauge]
            levels[gauge] = _Level(before.value + float(text), before.taken_ms if taken_ms is None else taken_ms)
    if gauge in levels:
        return levels[gauge]
    return Fault(
        "METRIC_MALFORMED", "A gauge with a sign is a change, which needs a level set before it in the same request."
    )
