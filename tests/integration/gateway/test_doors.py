"""The other doors for metrics: what is passed on, and answers as each door's own specification has them."""

from typing import Any

import aiohttp
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from chassis.errors import Unavailable
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from tests.integration.gateway.running import Answer, Gateway

PROTOBUF, JSON = "application/x-protobuf", "application/json"


async def post(gateway: Gateway, path: str, content_type: str = "", key: str | None = None, **headers: str) -> Answer:
    credential = gateway.auth.new_key("secret") if key is None else key
    sent = {**({"Content-Type": content_type} if content_type else {}), **headers}
    return await gateway.call("POST", path, credential=credential, data=b"body", headers=sent)


def rejected(*reasons: tuple[str, str], accepted: int = 0, more: int = 0) -> pb.IngestBatchResponse:
    listed = [pb.Rejection(index=at, code=code, message=message) for at, (code, message) in enumerate(reasons)]
    return pb.IngestBatchResponse(accepted=accepted, rejected=listed, rejected_more=more)


@pytest.mark.parametrize(
    ("path", "content_type", "door"),
    [
        ("/api/v1/statsd", "text/plain; charset=utf-8", pb.DOOR_STATSD),
        ("/api/v1/statsd", "", pb.DOOR_STATSD),
        ("/v1/metrics", PROTOBUF, pb.DOOR_OTLP_PROTOBUF),
        ("/v1/metrics", JSON, pb.DOOR_OTLP_JSON),
        ("/api/v1/metrics", JSON, pb.DOOR_UNSPECIFIED),
    ],
)
async def test_the_receiver_is_told_through_which_door_a_body_came(
    gateway: Gateway, path: str, content_type: str, door: "pb.Door.ValueType"
) -> None:
    answered = await post(gateway, path, content_type, **{"Content-Encoding": "gzip"})
    assert answered.status == (200 if path == "/v1/metrics" else 202)
    (received,) = gateway.ingest.requests("StreamBatches")
    assert (received.door, received.body, received.content_encoding) == (door, b"body", "gzip")


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/api/v1/statsd", JSON),
        ("/v1/metrics", "text/plain"),
        ("/api/v1/write", JSON),
        ("/api/v1/write", PROTOBUF),  # without Snappy
        ("/api/v1/write", f"{PROTOBUF};proto=io.prometheus.write.v2.Request"),
    ],
)
async def test_a_body_of_another_kind_is_refused(gateway: Gateway, path: str, content_type: str) -> None:
    answered = await post(gateway, path, content_type)
    assert (answered.status, answered.code) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert (await post(gateway, path, "text/plain", key="")).status == 401


async def test_the_snappy_of_a_push_is_that_of_a_pushgateway(gateway: Gateway) -> None:
    async def push(encoding: str) -> Answer:
        key, path = gateway.auth.new_key("secret"), "/metrics/job/nightly"
        return await gateway.call("PUT", path, credential=key, data=b"body", headers={"Content-Encoding": encoding})

    assert (await push("snappy")).status == 200
    (received,) = gateway.ingest.requests("StreamBatches")
    assert (received.door, received.content_encoding) == (pb.DOOR_PUSH_TEXT, "x-snappy-framed")
    refused = await push("br")
    assert (refused.status, refused.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_page_of_any_origin_may_ask_for_otlp(gateway: Gateway) -> None:
    asking = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    answered = await gateway.call("OPTIONS", "/v1/metrics", headers=asking)
    assert (answered.status, answered.headers["Access-Control-Allow-Origin"]) == (204, "*")


async def test_statsd_is_answered_like_metrics(gateway: Gateway) -> None:
    gateway.ingest.answers["IngestBatch"] = rejected(("METRIC_NOT_DEFINED", "No."), accepted=2, more=7)
    answered = await post(gateway, "/api/v1/statsd")
    listed = [{"index": 0, "code": "METRIC_NOT_DEFINED", "message": "No."}]
    assert (answered.status, answered.json) == (202, {"accepted": 2, "rejected": listed, "rejectedMore": 7})
    gateway.ingest.answers["IngestBatch"] = rejected(("METRIC_NOT_DEFINED", "No."))
    assert (await post(gateway, "/api/v1/statsd")).code == "BATCH_REJECTED"


async def test_remote_write_is_answered_so_that_a_sender_repeats_what_may_help(gateway: Gateway) -> None:
    async def write() -> Answer:
        return await post(gateway, "/api/v1/write", PROTOBUF, **{"Content-Encoding": "snappy"})

    gateway.ingest.answers["IngestBatch"] = pb.IngestBatchResponse(accepted=3)
    assert ((await write()).status, (await write()).body) == (204, b"")
    received = gateway.ingest.requests("StreamBatches")[-1]
    assert (received.door, received.body, received.content_encoding) == (pb.DOOR_REMOTE_WRITE, b"body", "snappy")

    gateway.ingest.answers["IngestBatch"] = rejected(("METRIC_NOT_DEFINED", "No."), accepted=2)
    answered = await write()
    assert (answered.status, answered.code) == (400, "SAMPLES_REJECTED")
    assert answered.json["error"]["message"].endswith("the others, 2, are stored: 1 x METRIC_NOT_DEFINED: No.")
    assert answered.json["error"]["details"]["accepted"] == 2

    gateway.ingest.answers["IngestBatch"] = Unavailable("The log is away.", retry_after_seconds=2)
    answered = await write()
    assert (answered.status, answered.headers["Retry-After"]) == (503, "2")


async def test_otlp_is_answered_in_its_own_format(gateway: Gateway) -> None:
    gateway.ingest.answers["IngestBatch"] = pb.IngestBatchResponse(accepted=1)
    in_protobuf, in_json = await post(gateway, "/v1/metrics", PROTOBUF), await post(gateway, "/v1/metrics", JSON)
    assert (in_protobuf.status, in_protobuf.headers["Content-Type"], in_protobuf.body) == (200, PROTOBUF, b"")
    assert (in_json.status, in_json.json) == (200, {})


async def test_otlp_tells_a_partial_success(gateway: Gateway) -> None:
    reasons: list[Any] = [("LABEL_MISSING", "No plan."), ("METRIC_NOT_DEFINED", "No."), ("METRIC_NOT_DEFINED", "No.")]
    gateway.ingest.answers["IngestBatch"] = rejected(*reasons, accepted=1, more=100)
    message = "2 x METRIC_NOT_DEFINED: No.; 1 x LABEL_MISSING: No plan.; and others"
    answered = await post(gateway, "/v1/metrics", PROTOBUF)
    partial = ExportMetricsServiceResponse.FromString(answered.body).partial_success
    assert (answered.status, partial.rejected_data_points, partial.error_message) == (200, 103, message)
    answered = await post(gateway, "/v1/metrics", JSON)
    assert answered.json == {"partialSuccess": {"rejectedDataPoints": "103", "errorMessage": message}}


async def test_otlp_errors_are_a_status_in_the_requests_format(gateway: Gateway) -> None:
    gateway.ingest.answers["IngestBatch"] = rejected(("METRIC_NOT_DEFINED", "No."))
    answered = await post(gateway, "/v1/metrics", PROTOBUF)
    status = Status.FromString(answered.body)
    assert (answered.status, answered.headers["Content-Type"], status.code) == (400, PROTOBUF, 3)
    assert status.message == "BATCH_REJECTED: No data point was accepted: 1 x METRIC_NOT_DEFINED: No."

    gateway.ingest.answers["IngestBatch"] = Unavailable("The log is away.", retry_after_seconds=2)
    answered = await post(gateway, "/v1/metrics", JSON)
    assert (answered.status, answered.headers["Retry-After"]) == (503, "2")
    assert answered.json == {"code": 14, "message": "SERVICE_UNAVAILABLE: The log is away."}
    assert (await post(gateway, "/v1/metrics", JSON, key="")).json["code"] == 16


PUSH_PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"


@pytest.mark.parametrize(
    ("method", "content_type", "door"),
    [
        ("PUT", "text/plain; version=0.0.4", pb.DOOR_PUSH_TEXT),
        ("POST", "application/x-www-form-urlencoded", pb.DOOR_PUSH_TEXT),
        ("POST", PUSH_PROTOBUF, pb.DOOR_PUSH_PROTOBUF),
    ],
)
async def test_a_push_is_passed_on_with_its_group(
    gateway: Gateway, method: str, content_type: str, door: "pb.Door.ValueType"
) -> None:
    answered = await gateway.call(
        method,
        "/metrics/job/nightly/path@base64/L3Nydg",
        credential=gateway.auth.new_key("secret"),
        data=b"body",
        headers={"Content-Type": content_type},
    )
    assert answered.status == 200
    (received,) = gateway.ingest.requests("StreamBatches")
    assert (received.door, received.body) == (door, b"body")
    assert list(received.group.labels) == ["job", "nightly", "path", "/srv"]


async def test_deleting_a_group_takes_a_key_and_a_path(gateway: Gateway) -> None:
    key = gateway.auth.new_key("secret")
    assert (await gateway.call("DELETE", "/metrics/job/nightly", credential=key)).status == 202
    assert (await gateway.call("DELETE", "/metrics/job/nightly/odd", credential=key)).status == 400
    assert (await gateway.call("DELETE", "/metrics/job/nightly")).status == 401


async def test_a_push_is_answered_like_a_pushgateway(gateway: Gateway) -> None:
    key = gateway.auth.new_key("secret")
    gateway.ingest.answers["IngestBatch"] = rejected(("METRIC_NOT_DEFINED", "No."), accepted=2)
    answered = await gateway.call("PUT", "/metrics/job/x", credential=key, data=b"body")
    assert (answered.status, answered.json["accepted"], len(answered.json["rejected"])) == (200, 2, 1)
    gateway.ingest.answers["IngestBatch"] = rejected(("METRIC_NOT_DEFINED", "No."))
    answered = await gateway.call("PUT", "/metrics/job/x", credential=key, data=b"body")
    assert (answered.status, answered.code) == (400, "BATCH_REJECTED")
    assert answered.json["error"]["details"]["rejected"][0]["code"] == "METRIC_NOT_DEFINED"
    answered = await gateway.call("PUT", "/metrics/job/x/odd", credential=key, data=b"body")
    assert (answered.status, answered.code) == (400, "MALFORMED_REQUEST")


async def test_a_key_may_be_the_password_where_metrics_come_in_and_nowhere_else(gateway: Gateway) -> None:
    key = gateway.auth.new_key("secret")

    def basic(login: str, password: str) -> dict[str, str]:
        return {"Authorization": aiohttp.encode_basic_auth(login, password)}

    for login in ("", "anybody"):
        answered = await gateway.call("PUT", "/metrics/job/x", headers=basic(login, key))
        assert answered.status == 200
    for header in (basic("x", "secret"), basic(key, "")):
        answered = await gateway.call("PUT", "/metrics/job/x", headers=header)
        assert (answered.status, answered.code) == (401, "INVALID_API_KEY")
    answered = await gateway.call("GET", "/prometheus/api/v1/labels", headers=basic("x", key))
    assert answered.status == 401
    both = {**basic("x", key), "X-API-Key": key}
    assert (await gateway.call("PUT", "/metrics/job/x", headers=both)).status == 400
