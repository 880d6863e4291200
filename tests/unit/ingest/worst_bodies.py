"""The worst bodies that the budgets of each door allow, or that cost most until they are refused."""

import gzip
import json
import random
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import zstandard
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from contracts.pulsegate.ingest.v1 import exposition_pb2 as push
from contracts.pulsegate.ingest.v1 import remote_write_pb2 as remote
from services.ingest.decoding import MOST_BODY_BYTES
from services.ingest.domain import MOST_METRICS_IN_BATCH, MOST_OBSERVATIONS, Door, MetricType, PushGroup
from tests.unit.ingest.ingestion import NOW_MS, definition, label

_LABELS = [f"l{number}" for number in range(16)]
_ANY: Mapping[str, Any] = {"labels": {name: label() for name in _LABELS}}

#: Each of nearly as many steps as a definition's may have, and of those that take longest to match.
PATTERNS = [rf"(?:[a-z]?){{980}}{number}" for number in range(MOST_METRICS_IN_BATCH)]

DEFINITIONS = (
    definition("wide_total", **_ANY),
    definition("depth", MetricType.GAUGE),
    definition("load_seconds", MetricType.HISTOGRAM, bounds=tuple(map(float, range(1, 25))), **_ANY),
    definition("size_bytes", MetricType.SUMMARY, objectives=(0.5,), **_ANY),
    definition("wait_seconds", MetricType.NATIVE_HISTOGRAM, **_ANY),
    *(definition(f"p{number}_total", labels={"l0": label(pattern=pattern)}) for number, pattern in enumerate(PATTERNS)),
)


@dataclass(frozen=True, kw_only=True)
class Worst:
    """A kind of body."""

    name: str
    door: Door
    #: A body with so many points, or of as many bytes as so many points may have.
    make: Callable[[int], bytes]
    #: Points of the largest one.
    most: int = 10_000
    encoding: str = ""
    group: PushGroup = field(default_factory=dict)
    #: Seconds of processor time for which nobody else has his turn, on a machine with nothing else to do.
    hold_seconds: float = 0.04
    #: And what it costs besides, whatever its size.
    besides_seconds: float = 0.0


def _dense(count: int) -> Iterator[str]:
    """Observations each of which is in a bin and a bucket of its own."""
    chance = random.Random(1)
    return (f"{chance.uniform(-1, 1) * 10 ** chance.randint(-300, 300):.3e}" for _ in range(count))


def _part(points: int) -> int:
    """How much of a body that has no points to count."""
    return MOST_BODY_BYTES * points // 10_000


# --- JSON


def _batch(metrics: Sequence[str]) -> bytes:
    return f'{{"metrics":[{",".join(metrics)}]}}'.encode()


def _observations(name: str) -> Callable[[int], bytes]:
    def make(metrics: int) -> bytes:
        each = ",".join(_dense(MOST_OBSERVATIONS))
        return _batch([f'{{"name":"{name}","labels":{{"l0":"{at}"}},"value":[{each}]}}' for at in range(metrics)])

    return make


def _distinct_labels(metrics: int) -> bytes:
    texts = [{name: f"{at}{name}".ljust(200, "x") for name in _LABELS} for at in range(metrics)]
    return _batch([json.dumps({"name": "wide_total", "value": 1, "labels": labels}) for labels in texts])


def _slow_values(count: int) -> list[str]:
    """One for each pattern, in turn."""
    chance = random.Random(1)
    ends = range(MOST_METRICS_IN_BATCH)
    return ["".join(chance.choices(string.ascii_lowercase, k=190)) + str(ends[at % len(ends)]) for at in range(count)]


def _patterns(more: str) -> Callable[[int], bytes]:
    def make(metrics: int) -> bytes:
        each = enumerate(_slow_values(metrics))
        return _batch([f'{{"name":"p{at}_total","value":1,"labels":{{"l0":"{value}"{more}}}' for at, value in each])

    return make


def slow_lines(points: int) -> bytes:
    each = enumerate(_slow_values(points))
    return "\n".join([f"p{at % MOST_METRICS_IN_BATCH}_total:1|c|#l0:{value}" for at, value in each]).encode()


def _wrong_values(metrics: int) -> bytes:
    each = f'{{"name":"load_seconds","value":[{",".join(["0"] * 4_900)},"x"]}}'
    return _batch([each] * metrics)


def _objects(points: int) -> bytes:
    return _batch(['{"name":"a","value":1}'] * (_part(points) // 24))


def _commas(points: int) -> bytes:
    return _batch(["0"] * (_part(points) // 2 - 10))


def _deep(points: int) -> bytes:
    half = _part(points) // 2 - 10
    return b'{"metrics":' + b"[" * half + b"]" * half + b"}"


def _half_a_character(points: int) -> bytes:
    return _batch([f'{{"name":"{chr(92) * 2 * (_part(points) // 8 - 50)}\\ud800","value":1}}'])


def _huge_integer(points: int) -> bytes:
    return b'{"metrics":[{"name":"depth","value":' + b"9" * (_part(points) - 50) + b"}]}"


def _blanks(points: int) -> bytes:
    return b" " * (_part(points) - 100) + _batch(['{"name":"depth","value":1}'])


def _many_gzip_members(points: int) -> bytes:
    plain = _blanks(points)
    size = len(plain) // 99
    return b"".join([gzip.compress(plain[at : at + size], 1) for at in range(0, len(plain), size)])


_JSON = [
    Worst(name="new label sets", door=Door.METRICS, make=_distinct_labels, most=MOST_METRICS_IN_BATCH),
    Worst(
        name="patterns",
        door=Door.METRICS,
        make=_patterns("}"),
        most=MOST_METRICS_IN_BATCH,
        besides_seconds=0.3,
    ),
    Worst(
        name="patterns and exemplars of label sets that are too long to be remembered",
        door=Door.METRICS,
        make=_patterns(f'{" " * 2_100}}},"exemplar":{{"traceId":"{"1" * 32}","spanId":"{"2" * 16}"}}'),
        most=MOST_METRICS_IN_BATCH,
        besides_seconds=0.6,
    ),
    *[
        Worst(name=f"observations of {name}", door=Door.METRICS, make=_observations(name), most=MOST_METRICS_IN_BATCH)
        for name in ("load_seconds", "size_bytes", "wait_seconds")
    ],
    Worst(name="arrays with a wrong value", door=Door.METRICS, make=_wrong_values, most=MOST_METRICS_IN_BATCH),
    Worst(name="too many metrics", door=Door.METRICS, make=_objects),
    Worst(name="too many elements", door=Door.METRICS, make=_commas),
    Worst(name="deep nesting", door=Door.METRICS, make=_deep),
    Worst(name="half a character behind escapes", door=Door.METRICS, make=_half_a_character),
    Worst(name="a huge integer", door=Door.METRICS, make=_huge_integer),
    Worst(
        name="gzip to the limit", door=Door.METRICS, make=lambda points: gzip.compress(_blanks(points)), encoding="gzip"
    ),
    Worst(name="gzip in many members", door=Door.METRICS, make=_many_gzip_members, encoding="gzip"),
    Worst(
        name="zstd to the limit",
        door=Door.METRICS,
        make=lambda points: zstandard.compress(_blanks(points)),
        encoding="zstd",
    ),
]


# --- StatsD


def _lines(line: Callable[[int], str]) -> Callable[[int], bytes]:
    return lambda points: "\n".join(map(line, range(points))).encode()


def _tags(at: int) -> str:
    return "wide:1|c|#" + ",".join([f"{name}:{at}{'x' * 12}" for name in _LABELS])


def _nine_values(points: int) -> bytes:
    values = list(_dense(9 * points))
    return "\n".join(
        [f"size_bytes:{':'.join(values[9 * at : 9 * at + 9])}|h|@0.5|#l0:{at}" for at in range(points)]
    ).encode()


_STATSD = [
    Worst(name="new label sets", door=Door.STATSD, make=_lines(_tags)),
    Worst(name="new distributions", door=Door.STATSD, make=_lines(lambda at: f"load_seconds:1|h|#l0:{at}")),
    Worst(name="observations", door=Door.STATSD, make=_nine_values),
    Worst(name="patterns", door=Door.STATSD, make=slow_lines, most=4_000, besides_seconds=2.5),
    Worst(name="unknown names", door=Door.STATSD, make=_lines(lambda at: f"{at}{'.' * 190}:1|c")),
    Worst(name="numbers too long", door=Door.STATSD, make=_lines(lambda _: f"wide:{'9' * 390}|c")),
]


# --- OpenTelemetry


def _request(*metrics: dict[str, Any]) -> dict[str, Any]:
    return {"resource_metrics": [{"scope_metrics": [{"scope": {"name": "s"}, "metrics": metrics}]}]}


def _attribute(key: str, text: str) -> dict[str, Any]:
    return {"key": key, "value": {"string_value": text}}


def _cumulative(points: Sequence[dict[str, Any]], **kind: Any) -> dict[str, Any]:
    return {"aggregation_temporality": 2, "data_points": points, **kind}


def _total(at: int, attributes: Sequence[dict[str, Any]], **data: Any) -> dict[str, Any]:
    times = {"time_unix_nano": NOW_MS * 1_000_000, "start_time_unix_nano": at + 1}
    return {**times, "attributes": attributes, **data}


def _sums(points: int) -> dict[str, Any]:
    every = [_total(at, [_attribute(name, f"{at}{name}") for name in _LABELS], as_int=1) for at in range(points)]
    return _request({"name": "wide", "sum": _cumulative(every, is_monotonic=True)})


def _many_names(points: int) -> dict[str, Any]:
    def metric(at: int) -> dict[str, Any]:
        point = _total(at, [_attribute(f"{at % 100}.{number}", "") for number in range(19)], as_int=1)
        return {"name": f"a{at}", "sum": _cumulative([point], is_monotonic=True)}

    return _request(*map(metric, range(points)))


def _histograms(points: int) -> dict[str, Any]:
    data = {"count": 0, "sum": 1.0, "bucket_counts": [0] * 25, "explicit_bounds": list(range(1, 25))}
    every = [_total(at, [_attribute("l0", f"{at}")], **data) for at in range(points)]
    return _request({"name": "load_seconds", "histogram": _cumulative(every)})


def _exponential(buckets: int) -> Callable[[int], dict[str, Any]]:
    def make(points: int) -> dict[str, Any]:
        side = {"offset": -1000 if buckets > 1000 else 0, "bucket_counts": [1] * buckets}
        data = {"count": buckets, "sum": 1.0, "scale": 3, "positive": side}
        every = [_total(at, [_attribute("l0", f"{at}")], **data) for at in range(points)]
        return _request({"name": "wait_seconds", "exponential_histogram": _cumulative(every)})

    return make


def _scopes(points: int) -> dict[str, Any]:
    resource = {"attributes": [_attribute(f"r{number}", "x") for number in range(18)]}
    scopes = [
        {"scope": {"name": f"{at}"}, "metrics": [{"name": f"g{at}", "gauge": {"data_points": [{"as_int": 1}]}}]}
        for at in range(points)
    ]
    return {"resource_metrics": [{"resource": resource, "scope_metrics": scopes}]}


def _in_protobuf(make: Callable[[int], dict[str, Any]]) -> Callable[[int], bytes]:
    return lambda points: ExportMetricsServiceRequest(**make(points)).SerializeToString()


def _in_json(make: Callable[[int], dict[str, Any]]) -> Callable[[int], bytes]:
    def in_json(points: int) -> bytes:
        text = json.dumps(make(points), separators=(",", ":"))
        return re.sub('"[a-z_]+":', lambda key: re.sub("_(.)", lambda each: each[1].upper(), key[0]), text).encode()

    return in_json


def _varint(number: int) -> bytes:
    low = bytes([number & 0x7F | (0x80 if number >= 0x80 else 0)])
    return low + (_varint(number >> 7) if number >= 0x80 else b"")


def _empties(tag: int, *around: int) -> Callable[[int], bytes]:
    """As many empty messages as there is room for, in fields around them, the innermost last."""

    def make(points: int) -> bytes:
        body = bytes([tag << 3 | 2, 0]) * (_part(points) // 2 - 20)
        for number in reversed(around):
            body = bytes([number << 3 | 2]) + _varint(len(body)) + body
        return body

    return make


#: Two million empty messages take their parser, which cannot be left alone in between, so long.
_EMPTIES_SECONDS = 0.09

_OTLP = [
    Worst(name="totals of new sources", door=Door.OTLP_PROTOBUF, make=_in_protobuf(_sums)),
    Worst(name="unknown names", door=Door.OTLP_PROTOBUF, make=_in_protobuf(_many_names), most=9_900),
    Worst(name="exponential histograms", door=Door.OTLP_PROTOBUF, make=_in_protobuf(_exponential(50)), most=9_900),
    Worst(name="very many buckets", door=Door.OTLP_PROTOBUF, make=_in_protobuf(_exponential(4_096)), most=120),
    Worst(name="many scopes", door=Door.OTLP_PROTOBUF, make=_in_protobuf(_scopes), most=6_500),
    *[
        Worst(name=name, door=Door.OTLP_PROTOBUF, make=_empties(*fields), hold_seconds=_EMPTIES_SECONDS)
        for name, fields in {
            "empty resources": (1,),
            "empty data points": (1, 1, 2, 2, 7),
            "empty exemplars": (5, 1, 2, 2, 7, 1),
            "empty attributes": (1, 1, 1),
        }.items()
    ],
    Worst(name="histograms", door=Door.OTLP_JSON, make=_in_json(_histograms), most=9_900),
    Worst(name="exponential histograms", door=Door.OTLP_JSON, make=_in_json(_exponential(50)), most=9_900),
    Worst(name="gauges", door=Door.OTLP_JSON, make=_in_json(_scopes), most=6_500),
    Worst(name="too many elements", door=Door.OTLP_JSON, make=_commas),
    Worst(name="deep nesting", door=Door.OTLP_JSON, make=_deep),
]


# --- remote write


def _written(name: str, labels: Callable[[int], Mapping[str, str]]) -> Callable[[int], bytes]:
    def series(at: int) -> remote.TimeSeries:
        named = {"__name__": name.format(at), **labels(at)}
        sample = remote.Sample(value=1, timestamp=NOW_MS)
        return remote.TimeSeries(labels=[remote.Label(name=key, value=named[key]) for key in named], samples=[sample])

    return lambda points: remote.WriteRequest(timeseries=[series(at) for at in range(points)]).SerializeToString()


def _distinct(at: int) -> dict[str, str]:
    return {name: f"{at}{name}" for name in _LABELS}


_REMOTE_WRITE = [
    Worst(name="totals of new sources", door=Door.REMOTE_WRITE, make=_written("wide_total", _distinct)),
    Worst(
        name="buckets",
        door=Door.REMOTE_WRITE,
        make=_written("load_seconds_bucket", lambda at: {"le": str(at % 24 + 1), **_distinct(at)}),
    ),
    Worst(
        name="unknown names",
        door=Door.REMOTE_WRITE,
        make=_written("a{}_total", lambda at: {f"{at}_{number}": "" for number in range(19)}),
    ),
    *[
        Worst(name=name, door=Door.REMOTE_WRITE, make=_empties(*fields), hold_seconds=_EMPTIES_SECONDS)
        for name, fields in {"empty series": (1,), "empty samples": (2, 1), "empty labels": (1, 1)}.items()
    ],
]


# --- pushes


def _labelled(name: str, labels: Mapping[str, str]) -> str:
    return name + "{" + ",".join([f'{key}="{value}"' for key, value in labels.items()]) + "}"


def _text(declared: str, line: Callable[[int], str]) -> Callable[[int], bytes]:
    return lambda points: "\n".join([declared, *map(line, range(points))]).encode()


def _histogram_lines(at: int) -> str:
    own = f'l0="{at}"'
    return f'load_seconds_bucket{{{own},le="+Inf"}} 1\nload_seconds_sum{{{own}}} 1\nload_seconds_count{{{own}}} 1'


def _escapes(points: int) -> bytes:
    return b'depth{l="' + b"\\\\" * (_part(points) // 2 - 20) + b'"} 1'


def _delimited(*messages: Message) -> bytes:
    encoded = [message.SerializeToString() for message in messages]
    return b"".join([_varint(len(each)) + each for each in encoded])


def _metric(labels: Mapping[str, str], **data: Any) -> push.ExpositionMetric:
    return push.ExpositionMetric(
        label=[push.ExpositionLabel(name=key, value=value) for key, value in labels.items()], **data
    )


def _pushed_counters(points: int) -> bytes:
    counted = push.ExpositionCounter(value=1)
    every = [_metric(_distinct(at), counter=counted) for at in range(points)]
    return _delimited(push.ExpositionFamily(name="wide_total", metric=every))


def _pushed_families(points: int) -> bytes:
    labels = {f"{number}": "" for number in range(19)}
    return _delimited(*[push.ExpositionFamily(name=f"a{at}", metric=[_metric(labels)]) for at in range(points)])


def _pushed_buckets(points: int) -> bytes:
    buckets = [push.ExpositionBucket(cumulative_count=1, upper_bound=at) for at in range(5 * points)]
    histogram = push.ExpositionHistogram(sample_count=1, sample_sum=1, bucket=buckets)
    kind = push.EXPOSITION_TYPE_HISTOGRAM
    return _delimited(push.ExpositionFamily(name="load_seconds", type=kind, metric=[_metric({}, histogram=histogram)]))


def _pushed_empties(points: int) -> bytes:
    body = b"\x22\x00" * (_part(points) // 2 - 20)
    return _varint(len(body)) + body


def _own_labels(at: int) -> str:
    return _labelled("wide_total", _distinct(at)) + " 1"


def _unknown(at: int) -> str:
    return _labelled(f"a{at}", {f"l{number}": "" for number in range(19)}) + " 1"


def _runs(at: int) -> str:
    return f"# TYPE a{at} counter\na{at} 1\na{at}_created 1.5"


def _pushed(
    name: str, make: Callable[[int], bytes], most: int = 10_000, door: Door = Door.PUSH_TEXT, hold_seconds: float = 0.04
) -> Worst:
    return Worst(name=name, door=door, make=make, most=most, group={"job": "nightly"}, hold_seconds=hold_seconds)


_A_HISTOGRAM = "# TYPE load_seconds histogram"
_PUSHES = [
    _pushed("new label sets", _text("# TYPE wide_total counter", _own_labels)),
    _pushed("unknown names", _text("", _unknown)),
    _pushed("runs of counters", _text("", _runs), 5_000),
    _pushed("histograms", _text(_A_HISTOGRAM, _histogram_lines)),
    _pushed("too many buckets", _text(_A_HISTOGRAM, lambda at: f'load_seconds_bucket{{le="{at}"}} 1'), 49_000),
    _pushed("declarations", _text("", lambda at: f"# TYPE a{at} counter"), 49_000),
    _pushed("escapes", _escapes),
    Worst(
        name="a group of very many labels",
        door=Door.PUSH_TEXT,
        make=_text("", lambda at: f"a{at} 1"),
        group={f"label{number}": "x" for number in range(1_000)},
    ),
    _pushed("new label sets", _pushed_counters, door=Door.PUSH_PROTOBUF),
    _pushed("unknown names", _pushed_families, door=Door.PUSH_PROTOBUF),
    _pushed("too many buckets", _pushed_buckets, door=Door.PUSH_PROTOBUF),
    _pushed("empty series", _pushed_empties, door=Door.PUSH_PROTOBUF, hold_seconds=_EMPTIES_SECONDS),
]

WORST: Sequence[Worst] = (*_JSON, *_STATSD, *_OTLP, *_REMOTE_WRITE, *_PUSHES)
