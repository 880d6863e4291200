"""The cases of alerts that promtool runs (tests/unit/rules), and a Prometheus that meets one of them now.

case = first_case("PulsegateBreakerOpen", "warning")
case.expected["PulsegateBreakerOpen"]    the labels of each alert that then fires
case.samples(now)                        its series as remote write takes them: their past, and some of their future
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser as parser
import yaml

from contracts.pulsegate.ingest.v1.remote_write_pb2 import WriteRequest
from deploy.local.layout import CHECKOUT
from tests.remote_writing import add_series

CASES = CHECKOUT / "tests" / "unit" / "rules"

#: Prometheus takes no samples of more than ten minutes ahead.
_AHEAD_MS = 8 * 60_000
#: What Prometheus writes where a series ends.
_STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RUN = re.compile(r"(?P<start>-?[\d.]+)(?P<step>[+-][\d.]+)?(?:x(?P<times>\d+))?")
_GAP = re.compile(r"_(?:x(?P<times>\d+))?")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case, at the last of the moments at which it expects an alert."""

    name: str
    rules: Path
    interval_ms: int
    #: labels → values, one an interval; None: there is none
    series: tuple[tuple[dict[str, str], tuple[float | None, ...]], ...]
    moment_ms: int
    #: alert → the labels of each that fires
    expected: dict[str, list[dict[str, str]]]

    def samples(self, now_ms: int) -> WriteRequest:
        """The case's moment is now. What its values say of time goes with it: the case begins at 0."""
        begin_ms = now_ms - self.moment_ms
        request = WriteRequest()
        for at_ms, labels, value in sorted(self._values(), key=lambda sample: sample[0]):
            if at_ms <= self.moment_ms + _AHEAD_MS:
                shift = begin_ms / 1000 if labels["__name__"].endswith("_timestamp_seconds") else 0
                add_series(request, labels, (begin_ms + at_ms, value + shift))
        return request

    def _values(self) -> Iterator[tuple[int, dict[str, str], float]]:
        for labels, values in self.series:
            for index, value in enumerate(values):
                if value is not None:
                    yield index * self.interval_ms, labels, value


def first_case(alert: str, severity: str) -> Case:
    """The first case in which the alert fires. Raises LookupError where there is none."""
    for case in cases():
        if any(labels["severity"] == severity for labels in case.expected.get(alert, [])):
            return case
    raise LookupError(f"{alert}, {severity}, fires in no case of tests/unit/rules")


@cache
def cases() -> tuple[Case, ...]:
    """Those in which something fires."""
    return tuple(case for path in sorted(CASES.glob("*.yaml")) for case in _cases(path))


def _cases(path: Path) -> Iterator[Case]:
    file = yaml.safe_load(path.read_text())
    (rules,) = file["rule_files"]
    for described in file["tests"]:
        fires = [tested for tested in described["alert_rule_test"] if tested["exp_alerts"]]
        if fires:
            yield Case(
                name=f"{path.stem}: {described['name']}",
                rules=path.parent / rules,
                interval_ms=_milliseconds(described["interval"]),
                series=tuple((_labels(each["series"]), _values(each["values"])) for each in described["input_series"]),
                moment_ms=max(_milliseconds(tested["eval_time"]) for tested in fires),
                expected={tested["alertname"]: _expected(tested) for tested in fires},
            )


def _expected(tested: dict[str, Any]) -> list[dict[str, str]]:
    return [alert["exp_labels"] for alert in tested["exp_alerts"]]


def _milliseconds(text: str) -> int:
    """Such as 1h50m."""
    return sum(int(number) * _UNITS_MS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))


def _labels(series: str) -> dict[str, str]:
    selector = parser.parse(series)
    assert isinstance(selector, parser.VectorSelector)
    assert selector.name
    return {"__name__": selector.name, **{each.name: each.value for each in selector.matchers.matchers}}


def _values(notation: str) -> tuple[float | None, ...]:
    return tuple(value for run in notation.split() for value in _run(run))


def _run(notation: str) -> list[float | None]:
    """`stale`, `a`, `axn` (once, and n times more), `a+bxn`, `_`, `_xn` (n times). Raises ValueError for others."""
    if notation == "stale":
        return [_STALE]
    if found := _GAP.fullmatch(notation):
        return [None] * int(found["times"] or 1)
    if not (found := _RUN.fullmatch(notation)):
        raise ValueError(f"{notation} is not known here")
    start, step, times = float(found["start"]), float(found["step"] or 0), int(found["times"] or 0)
    return [start + step * index for index in range(times + 1)]
