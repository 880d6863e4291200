"""Prometheus' text exposition format, version 0.0.4, as https://prometheus.io/docs/instrumenting/exposition_formats
has it.

Written out, because the parser of prometheus_client, which is for trusted bodies, goes through each character in Python
and lets pass what Pushgateway refuses: timestamps, and series that are there twice. Time is linear in the body.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from services.ingest.domain import MOST_POINTS_IN_REQUEST
from services.ingest.doors.exposition import (
    MOST_LABELS_IN_PUSH,
    MOST_LABELS_OF_SERIES,
    Family,
    FamilyType,
    Series,
    buckets_of,
    summary_of,
)
from services.ingest.errors import BatchTooLarge, MalformedBody
from services.ingest.turns import Steps

#: Buckets, sums and counts have a line each.
_MOST_LINES = 5 * MOST_POINTS_IN_REQUEST
_LONGEST_NUMBER = 400
#: Characters of a sample: far more than all labels of a definition take.
_LONGEST_SAMPLE = 1 << 16

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*+")
_TYPE = re.compile(r"#[ \t]++TYPE[ \t]++(\S++)[ \t]++(\S++)")
_LABEL = re.compile(
    r'[ \t]*+([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"([^"\\]*+(?:\\[\\"n][^"\\]*+)*+)"[ \t]*+(?:,[ \t]*+(\})?+|(\}))'
)
_EMPTY = re.compile(r"[ \t]*+\}")

#: Which suffixes make a sample part of a family of these types.
_SUFFIXES: Mapping[FamilyType, tuple[str, ...]] = {
    FamilyType.HISTOGRAM: ("_bucket", "_sum", "_count"),
    FamilyType.SUMMARY: ("_sum", "_count"),
    FamilyType.COUNTER: ("_total",),
}
_WITHIN = {FamilyType.HISTOGRAM: "le", FamilyType.SUMMARY: "quantile"}

_Labels = dict[str, str]
_Key = frozenset[tuple[str, str]]
_Part = tuple[str, str | float]


@dataclass(slots=True)
class _Gathered:
    """The samples of one label set: a number, or the parts of a distribution, by suffix and bound (or quantile)."""

    labels: _Labels
    parts: dict[_Part, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Gathering:
    """A family whose samples are being read."""

    type: FamilyType
    series: dict[_Key, _Gathered] = field(default_factory=dict)
    #: The label that tells the samples of one distribution apart; empty where there are no such.
    within: str = field(init=False)

    def __post_init__(self) -> None:
        self.within = _WITHIN.get(self.type, "")


def parse(body: bytes) -> Steps[list[Family]]:
    """The families of the body, in order. Raises MalformedBody, which names the line, and BatchTooLarge."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(f"The body is not UTF-8 at byte {error.start}.") from error
    if text.count("\n") >= _MOST_LINES:
        raise BatchTooLarge(f"A push takes at most {_MOST_LINES} lines.")
    reader = _Reader()
    for number, line in enumerate(text.split("\n"), 1):
        try:
            reader.read(line.strip(" \t\r"))
        except ValueError as error:
            raise MalformedBody(f"Line {number}: {error}.") from error
        yield
    return (yield from reader.families())


class _Reader:
    """Reads a body line by line. What is wrong with a line is a ValueError."""

    def __init__(self) -> None:
        self._families: dict[str, _Gathering] = {}
        #: Where samples of a name belong: their family and suffix.
        self._places: dict[str, tuple[_Gathering, str]] = {}
        self._series = 0
        self._labels_left = MOST_LABELS_IN_PUSH

    def read(self, line: str) -> None:
        if line.startswith("#"):
            if declared := _TYPE.match(line):
                self._declare(*declared.groups())
        elif line:
            self._read_sample(line)

    def _declare(self, name: str, kind: str) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:80]!r} is no name of a metric")
        if name in self._families:
            raise ValueError(f"the type of {name[:80]} was told before, or comes after its samples")
        if len(self._families) == MOST_POINTS_IN_REQUEST:
            raise BatchTooLarge(f"A push takes at most {MOST_POINTS_IN_REQUEST} metrics.")
        try:
            self._families[name] = _Gathering(FamilyType(kind))
        except ValueError:
            raise ValueError(f"the type {kind[:80]!r} is unknown") from None

    def _read_sample(self, line: str) -> None:
        if len(line) > _LONGEST_SAMPLE:
            raise ValueError(f"a sample has at most {_LONGEST_SAMPLE} characters")
        found = _NAME.match(line)
        if not found:
            raise ValueError("a sample begins with the name of its metric")
        labels, rest = self._labels(line, found.end())
        value = rest.split(maxsplit=1)
        if len(value) > 1:
            raise ValueError("pushed samples have no timestamps, and nothing else behind the value")
        self._keep(found[0], labels, _number(value[0] if value else ""))

    def _labels(self, line: str, at: int) -> tuple[_Labels, str]:
        """The labels of a sample and what comes behind them."""
        rest = line[at:].lstrip(" \t")
        if not rest.startswith("{"):
            if rest == line[at:]:
                raise ValueError("a name is followed by labels in braces, or a blank and the value")
            return {}, rest
        labels: _Labels = {}
        if empty := _EMPTY.match(rest, 1):
            return labels, rest[empty.end() :]
        end, closed = 1, False
        while not closed:
            found = _LABEL.match(rest, end)
            if not found:
                raise ValueError('labels are name="value" pairs with commas between them, in braces')
            name, value = found.group(1, 2)
            if name in labels or len(labels) == MOST_LABELS_OF_SERIES:
                raise ValueError(f"the label {name[:80]} is there twice, or one of more than {MOST_LABELS_OF_SERIES}")
            labels[name] = _unescaped(value) if "\\" in value else value
            end, closed = found.end(), found.lastindex != 2  # one of the groups behind has the closing brace
        self._labels_left -= len(labels)
        if self._labels_left < 0:
            raise BatchTooLarge(f"The lines of a push have at most {MOST_LABELS_IN_PUSH} labels.")
        return labels, rest[end:]

    def _keep(self, name: str, labels: _Labels, value: float) -> None:
        family, suffix = self._places.get(name) or self._place(name)
        within: str | float = labels.pop(family.within, "")
        if suffix == "_bucket":
            within = _number(str(within))
        key = frozenset(labels.items())
        series = family.series.get(key)
        if series is None:
            series = family.series[key] = self._begin_series(labels)
        if (suffix, within) in series.parts:
            raise ValueError("this series is there twice")
        series.parts[suffix, within] = value

    def _begin_series(self, labels: _Labels) -> _Gathered:
        self._series += 1
        if self._series > MOST_POINTS_IN_REQUEST:
            raise BatchTooLarge(f"A push takes at most {MOST_POINTS_IN_REQUEST} series.")
        return _Gathered(labels)

    def _place(self, name: str) -> tuple[_Gathering, str]:
        place = next(self._declared(name), None)
        if place is None:
            place = self._families.setdefault(name, _Gathering(FamilyType.UNTYPED)), ""
        self._places[name] = place
        return place

    def _declared(self, name: str) -> Iterator[tuple[_Gathering, str]]:
        if name in self._families:
            yield self._families[name], ""
        for suffix in ("_bucket", "_sum", "_count", "_total"):
            family = self._families.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
            if family is not None and suffix in _SUFFIXES.get(family.type, ()):
                yield family, "" if suffix == "_total" else suffix

    def families(self) -> Steps[list[Family]]:
        """What was read. `_created` series of others say when those began to count."""
        beginnings = {name: stem for name in self._families if (stem := self._begins(name))}
        for name, stem in beginnings.items():
            began = self._families.pop(name).series
            for key, each in self._families[stem].series.items():
                each.parts |= _beginning(began.get(key))
                yield
        found = []
        for name, gathering in self._families.items():
            family = Family(name, gathering.type)
            for each in gathering.series.values():
                family.series.append(_series(gathering.type, each))
                yield
            found.append(family)
        return found

    def _begins(self, name: str) -> str:
        """The family whose beginnings a family of that name tells; empty where it tells none."""
        stem = name.removesuffix("_created")
        if stem == name or self._families[name].type in _SUFFIXES:
            return ""
        for each in (stem, f"{stem}_total"):
            family = self._families.get(each)
            if family is not None and family.type in _SUFFIXES:
                return each
        return ""


def _beginning(created: _Gathered | None) -> dict[_Part, float]:
    return {} if created is None else {("_created", ""): created.parts.get(("", ""), 0.0)}


def _series(kind: FamilyType, gathered: _Gathered) -> Series:
    parts = gathered.parts
    began = parts.get(("_created", ""), 0.0)
    count, total = parts.get(("_count", "")), parts.get(("_sum", ""))
    if kind is FamilyType.SUMMARY:
        return Series(gathered.labels, summary_of(count, total), began)
    if kind is FamilyType.HISTOGRAM:
        cumulative = {float(bound): value for (suffix, bound), value in parts.items() if suffix == "_bucket"}
        return Series(gathered.labels, buckets_of(cumulative, count, total), began)
    return Series(gathered.labels, parts["", ""], began)


def _number(text: str) -> float:
    if not text.isascii() or len(text) > _LONGEST_NUMBER or "_" in text:
        raise ValueError("the value is no number")
    try:
        return float(text)
    except ValueError:
        raise ValueError("the value is no number") from None


def _unescaped(value: str) -> str:
    between = value.split("\\\\")
    return "\\".join([part.replace("\\n", "\n").replace('\\"', '"') for part in between])
