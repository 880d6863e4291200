"""One metric as it is recorded, checked, folded and written as JSON."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import Any, Iterable, List

_OBSERVATIONS_PER_METRIC = 1_000  # the server takes no more in one array
_NUMBER_BYTES = 25  # at most: a double as JSON, and its comma

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode


class Invalid(ValueError):
    """What was recorded cannot be sent; the message says why in words of ours, which quote nothing."""


@dataclass
class Metric:
    """One metric of a batch, of one record() call or of several folded into it."""

    identity: str  # name and labels as canonical JSON, without the closing brace
    kind: str | None
    values: List[float]
    timestamp: int | None  # Unix milliseconds
    calls: int

    @property
    def size(self) -> int:
        """Bytes of its JSON, at most."""
        return len(self.identity.encode()) + _NUMBER_BYTES * (len(self.values) + 2)

    def fold(self, later: Metric) -> bool:
        """Take in a later metric of the same kind, name and labels; False where they must stay apart."""
        if self.kind == "counter" and math.isfinite(self.values[0] + later.values[0]):
            self.values[0] += later.values[0]
        elif self.kind == "gauge":
            if (later.timestamp or 0) >= (self.timestamp or 0):
                self.values, self.timestamp = later.values, later.timestamp
        elif self.kind in ("histogram", "summary") and self._has_room_for(later):
            self.values += later.values
        else:
            return False
        self.calls += later.calls
        return True

    def _has_room_for(self, later: Metric) -> bool:
        return len(self.values) + len(later.values) <= _OBSERVATIONS_PER_METRIC

    def json(self) -> str:
        value = _to_json(self.values if len(self.values) > 1 else self.values[0])
        timestamp = "" if self.timestamp is None else f',"timestamp":{self.timestamp}'
        return f'{self.identity},"value":{value}{timestamp}}}'


def metrics_of(name: str, value: Any, labels: Any, timestamp: float | None, kind: str | None) -> List[Metric]:
    """The metrics of one record() call: one, or several where it brings many observations.

    Raises Invalid, or whatever the objects that were passed raise.
    """
    label_set = dict(labels or {})
    if not name or not all(isinstance(text, str) for text in (name, *label_set, *label_set.values())):
        raise Invalid("the name and labels must be text")
    single = isinstance(value, (int, float, str, bytes)) or not isinstance(value, Iterable)
    values = [_finite(value)] if single else [_finite(one) for one in value]
    if not values or (kind in ("counter", "gauge") and len(values) > 1):
        raise Invalid("one value is needed, or several observations")
    if kind == "counter" and values[0] < 0:
        raise Invalid("a counter cannot go down")
    identity, moment = _to_json({"labels": label_set, "name": name})[:-1], _milliseconds(timestamp, kind)
    identity.encode()  # raises for half a surrogate pair
    starts = range(0, len(values), _OBSERVATIONS_PER_METRIC)
    return [
        Metric(identity, kind, values[at : at + _OBSERVATIONS_PER_METRIC], moment, calls=int(at == 0)) for at in starts
    ]


def fault_of(name: object, error: Exception) -> str:
    """What was wrong with a record() call, for the log: no value or label, and nothing that could raise."""
    why = str(error) if isinstance(error, Invalid) else type(error).__name__
    return f"{name[:100]!r}: {why}" if type(name) is str else why


def _finite(value: Any) -> float:
    if isinstance(value, (str, bytes)):
        raise Invalid("text is not a number")
    number: float = value if type(value) is int and abs(value) <= 2**53 else float(value)
    if not math.isfinite(number):
        raise Invalid("the number is not finite")
    return number


def _milliseconds(timestamp: float | None, kind: str | None) -> int | None:
    """Gauges have a time of their own, that of the call unless given; everything else counts on arrival."""
    if kind in ("counter", "histogram", "summary") or (kind != "gauge" and timestamp is None):
        return None
    moment = round((time.time() if timestamp is None else _finite(timestamp)) * 1000)
    if not 0 <= moment <= 2**53:
        raise Invalid("the timestamp is not a time in Unix seconds")
    return moment
