"""Hostile bodies: what each is answered, by status and code, and that what was taken beside them counts exactly."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
import zstandard

from tests.e2e.api import Answer, Project
from tests.waiting import eventually

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

_MEBIBYTE = 1 << 20
_BOMB = b'{"metrics": [' + b" " * (200 * _MEBIBYTE) + b"]}"
_HOUR_MS = 3_600_000
#: Of its metric; what comes after it folds.
_SERIES_OF_A_METRIC = 10_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def defined(shared_project: Project) -> Project:
    for name in ("good_total", "doubled_total", "summed_total", "folded_total"):
        await shared_project.define(name, labels=[{"name": "note"}])
    await shared_project.define("level", "gauge")
    return shared_project


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    """Sent so, a body has no Content-Length."""
    for start in range(0, len(body), 1 << 16):
        yield body[start : start + (1 << 16)]


async def _post(project: Project, body: bytes, *, encoding: str = "", chunked: bool = False) -> Answer:
    headers = {"Content-Encoding": encoding} if encoding else {}
    data: Any = _in_pieces(body) if chunked else body
    return await project.api.call(
        "POST", "/api/v1/metrics", data=data, credential=project.secret_key, headers=headers, timeout_seconds=30
    )


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("compress", "encoding", "what"),
    [
        (bytes, "", b" " * (10 * _MEBIBYTE)),
        (partial(gzip.compress, compresslevel=1), "gzip", _BOMB),
        (zstandard.compress, "zstd", _BOMB),
    ],
    ids=["ten mebibytes", "gzip bomb", "zstd bomb"],
)
async def test_what_is_too_large_is_refused_quickly(
    defined: Project, compress: Any, encoding: str, what: bytes, chunked: bool
) -> None:
    body = await asyncio.to_thread(compress, what)
    answer = await _post(defined, body, encoding=encoding, chunked=chunked)
    assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE"), answer.text


def _metric(**members: Any) -> bytes:
    return json.dumps({"metrics": [{"name": "good_total", "value": 1, **members}]}).encode()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"metrics": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", 400, "MALFORMED_JSON"),
        (b'{"metrics": [{"name": "good_total", "value": 1, "labels": {"note": "\xff"}}]}', 400, "MALFORMED_JSON"),
        (b'{"metrics": [{"name": "good_total", "value": 1, "labels": {"note": "\x00"}}]}', 400, "MALFORMED_JSON"),
        (b'{"metrics": [{"name": "good_total", "value": -Infinity}]}', 400, "MALFORMED_JSON"),
        (b'{"metrics": [{"name": "good_total", "value": NaN}]}', 400, "MALFORMED_JSON"),
        (b'{"metrics": [{"name": "good_total", "value": ' + b"9" * 100_000 + b"}]}", 422, "VALUE_NOT_FINITE"),
        (b'{"metrics": [{"name": "good_total", "value": 1e309}]}', 422, "VALUE_NOT_FINITE"),
        (_metric(value="Infinity"), 422, "VALUE_NOT_FINITE"),
        (_metric(value=-1e-300), 422, "VALUE_NEGATIVE"),
        (
            b'{"producer": "0192f0c1-0000-7000-8000-000000000000", "sequence": ' + b"9" * 40 + b', "metrics": [{}]}',
            422,
            "VALIDATION_FAILED",
        ),
        (_metric(labels={"note": "a\x00b"}), 422, "LABEL_VALUE_NOT_ALLOWED"),
        (_metric(labels={"note": "x" * 10_000}), 422, "LABEL_VALUE_TOO_LONG"),
        (_metric(labels={"x" * 10_000: "note"}), 422, "LABEL_UNKNOWN"),
        (_metric(labels={"__name__": "up"}), 422, "LABEL_UNKNOWN"),
        (_metric(labels={"tenant_id": "another"}), 422, "LABEL_UNKNOWN"),
        (_metric(labels={"project_id": "another"}), 422, "LABEL_UNKNOWN"),
        (_metric(labels={"le": "+Inf"}), 422, "LABEL_UNKNOWN"),
        (_metric(labels={"note": "__other__"}), 422, "LABEL_VALUE_NOT_ALLOWED"),
    ],
)
async def test_what_cannot_count_is_refused(defined: Project, body: bytes, status: int, code: str) -> None:
    """Of a batch whose only metric is rejected the code is the metric's."""
    answer = await _post(defined, body)
    assert answer.status == status, answer.text
    rejected = answer.json["error"].get("details", {}).get("rejected")
    assert (rejected[0]["code"] if rejected else answer.code) == code, answer.text


@pytest.mark.parametrize("name", ["__name__", "tenant_id", "project_id", "le", "quantile"])
async def test_no_definition_takes_a_label_that_is_the_platforms(shared_project: Project, name: str) -> None:
    spec = {"name": "x_total", "type": "counter", "help": "x", "labels": [{"name": name}]}
    path = f"/api/v1/projects/{shared_project.id}/metrics"
    answer = await shared_project.api.call("POST", path, spec, credential=shared_project.token)
    assert (answer.status, answer.code) == (422, "VALIDATION_FAILED")
    assert list(answer.json["error"]["details"]["fields"]) == ["labels[0].name"]


async def test_of_a_member_that_comes_twice_the_last_one_counts(defined: Project) -> None:
    answer = await _post(defined, b'{"metrics": [{}], "metrics": [{"name": "doubled_total", "value": 5, "value": 2}]}')
    assert (answer.status, answer.json) == (202, {"accepted": 1, "rejected": []})
    await defined.shows("doubled_total", 2)


async def test_minus_zero_adds_nothing_and_a_sum_that_overflows_stays_a_number(defined: Project) -> None:
    for value, total in ((-0.0, 0.0), (1.7e308, 1.7e308), (1.7e308, 1.7976931348623157e308)):
        assert (await _post(defined, _metric(name="summed_total", value=value))).status == 202
        await defined.shows("summed_total", total)


@pytest.mark.parametrize(
    ("name", "off_ms", "code"),
    [
        ("good_total", _HOUR_MS, ""),
        ("good_total", -_HOUR_MS, ""),
        ("level", -_HOUR_MS, ""),
        ("level", _HOUR_MS, "TIMESTAMP_OUT_OF_RANGE"),
    ],
)
async def test_a_clock_that_is_an_hour_off_matters_to_gauges_of_the_future_alone(
    defined: Project, name: str, off_ms: int, code: str
) -> None:
    timestamp = int(time.time() * 1000) + off_ms
    answer = await defined.send({"name": name, "value": 1, "timestamp": timestamp})
    assert answer.status == (422 if code else 202), answer.text
    if code:
        assert answer.json["error"]["details"]["rejected"][0]["code"] == code


async def test_label_sets_without_end_fold_and_their_total_stays_exact(defined: Project) -> None:
    """A tenth more than a metric's budget: what comes after that is folded as these are, a million as well."""
    sets = _SERIES_OF_A_METRIC * 11 // 10

    async def send(first: int) -> None:
        metrics = [{"name": "folded_total", "value": 1, "labels": {"note": f"n{first + i}"}} for i in range(100)]
        answer = await defined.send(*metrics)
        assert (answer.status, answer.json["accepted"]) == (202, 100), answer.text

    for first in range(0, sets, 1000):
        await asyncio.gather(*(send(first + hundred) for hundred in range(0, 1000, 100)))
    await defined.shows("sum(folded_total)", sets, within_seconds=60)
    await defined.shows("count(folded_total)", _SERIES_OF_A_METRIC + 1)
    await defined.shows('sum(folded_total{note="__other__"})', sets - _SERIES_OF_A_METRIC)
    await eventually(lambda: _is_told(defined), what="the rejections tell of the budget")


async def _is_told(project: Project) -> bool:
    key = (await project.create_key("secret", scopes=["usage:read"]))["key"]
    answer = await project.api.call("GET", f"/api/v1/projects/{project.id}/rejections", credential=key)
    return any(item["code"] == "CARDINALITY_LIMIT" for item in answer.json["items"])


async def test_bodies_of_the_management_api_are_judged_alike(shared_project: Project) -> None:
    path, deep = f"/api/v1/projects/{shared_project.id}/metrics", b"[" * 120_000 + b"]" * 120_000
    for body, status, code in (
        (deep, 400, "MALFORMED_JSON"),
        (b" " * (256 << 10) + b"{}", 413, "BODY_TOO_LARGE"),
        (b" " * (10 * _MEBIBYTE), 413, "BODY_TOO_LARGE"),
        (b'{"name": "\xff"}', 400, "MALFORMED_JSON"),
        (b'{"name": "a\\u0000b_total", "type": "counter", "help": "x"}', 422, "VALIDATION_FAILED"),
        (b'{"name": "x_total", "type": "histogram", "help": "x", "buckets": [1e999]}', 422, "VALIDATION_FAILED"),
    ):
        answer = await shared_project.api.call(
            "POST", path, data=body, credential=shared_project.token, timeout_seconds=30
        )
        assert (answer.status, answer.code) == (status, code), f"{body[:60]!r}: {answer.text}"
