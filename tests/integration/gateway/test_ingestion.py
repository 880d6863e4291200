"""Batches of metrics: who may send them, what is passed on, what is answered."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import REGISTRY

from chassis.errors import Malformed, Unavailable
from contracts.pulsegate.ingest.v1 import ingest_pb2
from tests.integration.gateway.running import Gateway
from tests.waiting import eventually


async def test_the_bytes_reach_the_receiver_as_they_were_sent(gateway: Gateway) -> None:
    key = gateway.auth.new_key()
    body = gzip.compress(b'{"metrics": [ ]}  ')

    sent = await gateway.call(
        "POST",
        "/api/v1/metrics",
        credential=key,
        data=body,
        headers={"Content-Type": "application/json; charset=utf-8", "Content-Encoding": "GZIP"},
    )

    assert sent.status == 202
    assert sent.json == {"accepted": 1, "rejected": []}
    (received,) = gateway.ingest.requests("StreamBatches")
    assert (received.body, received.content_encoding) == (body, "gzip")


async def test_the_receiver_is_told_whose_metrics_these_are(gateway: Gateway) -> None:
    await gateway.ingest_one(gateway.auth.new_key())
    principal = gateway.ingest.seen[0].principal
    assert principal is not None
    assert principal.kind == "publishable"
    assert principal.scopes == {"ingest:write"}


async def test_a_beacon_may_send_text_with_its_key_in_the_address(gateway: Gateway) -> None:
    key = gateway.auth.new_key()
    sent = await gateway.call("POST", f"/api/v1/metrics?key={key}", data='{"metrics": []}')
    assert sent.status == 202


async def test_some_rejected_metrics_leave_the_batch_accepted(gateway: Gateway) -> None:
    rejection = ingest_pb2.Rejection(index=3, code="LABEL_UNKNOWN", message="No such label.")
    gateway.ingest.answers["IngestBatch"] = ingest_pb2.IngestBatchResponse(
        accepted=2, rejected=[rejection], duplicate=True
    )
    sent = await gateway.ingest_one(gateway.auth.new_key())
    assert sent.status == 202
    rejected = [{"index": 3, "code": "LABEL_UNKNOWN", "message": "No such label."}]
    assert sent.json == {"accepted": 2, "rejected": rejected, "duplicate": True}


async def test_a_batch_without_an_accepted_metric_is_rejected(gateway: Gateway) -> None:
    rejection = ingest_pb2.Rejection(index=0, code="METRIC_NOT_DEFINED", message="No such metric.")
    gateway.ingest.answers["IngestBatch"] = ingest_pb2.IngestBatchResponse(rejected=[rejection])
    sent = await gateway.ingest_one(gateway.auth.new_key())
    assert (sent.status, sent.code) == (422, "BATCH_REJECTED")
    rejected = [{"index": 0, "code": "METRIC_NOT_DEFINED", "message": "No such metric."}]
    assert sent.json["error"]["details"] == {"accepted": 0, "rejected": rejected}


async def test_the_receivers_errors_pass_through(gateway: Gateway) -> None:
    gateway.ingest.answers["IngestBatch"] = Malformed("Not JSON.", code="MALFORMED_JSON")
    sent = await gateway.ingest_one(gateway.auth.new_key())
    assert (sent.status, sent.code) == (400, "MALFORMED_JSON")


async def test_a_batch_is_never_sent_to_the_receiver_twice(gateway: Gateway) -> None:
    gateway.ingest.answers["IngestBatch"] = Unavailable("The log is away.", retry_after_seconds=7)
    sent = await gateway.ingest_one(gateway.auth.new_key())
    assert (sent.status, sent.code, sent.headers["Retry-After"]) == (503, "SERVICE_UNAVAILABLE", "7")
    assert len(gateway.ingest.requests("StreamBatches")) == 1


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "application/xml"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"Content-Type": "application/json", "Content-Encoding": "br"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip, gzip"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ],
)
async def test_other_types_and_encodings_are_refused(
    gateway: Gateway, headers: dict[str, str], status: int, code: str
) -> None:
    key = gateway.auth.new_key()
    sent = await gateway.call("POST", "/api/v1/metrics", credential=key, data=b"{}", headers=headers)
    assert (sent.status, sent.code) == (status, code)
    assert gateway.ingest.seen == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_may_have_one_mebibyte_and_no_byte_more(gateway: Gateway, chunked: bool) -> None:
    key = gateway.auth.new_key()

    async def send(size: int) -> int:
        data = _in_chunks(size) if chunked else b"x" * size
        sent = await gateway.call(
            "POST", "/api/v1/metrics", credential=key, data=data, headers={"Content-Type": "application/json"}
        )
        assert sent.status == 202 or sent.code == "BODY_TOO_LARGE"
        return sent.status

    assert await send(1 << 20) == 202
    assert await send((1 << 20) + 1) == 413
    assert len(gateway.ingest.requests("StreamBatches")) == 1


async def _in_chunks(size: int):  # type: ignore[no-untyped-def]
    for start in range(0, size, 65_536):
        yield b"x" * min(65_536, size - start)


async def test_fifty_batches_at_once_are_all_answered(gateway: Gateway) -> None:
    key = gateway.auth.new_key()
    answers = await asyncio.gather(*(gateway.ingest_one(key) for _ in range(50)))
    assert {answer.status for answer in answers} == {202}
    assert len(gateway.ingest.requests("StreamBatches")) == 50
    assert gateway.auth.asked <= 2  # equal look-ups are made together


async def test_requests_that_follow_each_other_without_waiting_are_all_answered(gateway: Gateway) -> None:
    """Bodies are so large that reading pauses, or there is more than one request in what is read at once."""
    bodies = [b"x" * size for size in (1 << 20, 10, 300_000, *[20] * 40, 1 << 20)]
    key = gateway.auth.new_key()
    head = f"POST /api/v1/metrics HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)

    async def send() -> None:
        for body in bodies:
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(send())
        for _ in bodies:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 202 ")
            await reader.readexactly(len(b'{"accepted":1,"rejected":[]}'))
    writer.close()
    assert [batch.body for batch in gateway.ingest.requests("StreamBatches")] == bodies


@pytest.mark.parametrize("path", ["/api/v1/metrics/", "/api/v1/metrics%2F", "/api/v1//metrics"])
async def test_only_the_path_itself_is_the_door(gateway: Gateway, path: str) -> None:
    sent = await gateway.call("POST", path, credential=gateway.auth.new_key(), data=b"{}")
    assert (sent.status, sent.code) == (404, "NOT_FOUND")


async def test_a_client_that_asks_before_it_sends_the_body_is_told_to_go_on(gateway: Gateway) -> None:
    key = gateway.auth.new_key()
    headers = {"Content-Type": "application/json"}
    sent = await gateway.call("POST", "/api/v1/metrics", credential=key, data=b"{}", headers=headers, expect100=True)
    assert sent.status == 202
    assert sent.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_client_that_goes_away_in_the_middle_of_its_body_is_no_failure_of_ours(gateway: Gateway) -> None:
    before = _internal_errors()
    key = gateway.auth.new_key()
    head = f"POST /api/v1/metrics HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: text/plain\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
    writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    await writer.drain()
    writer.close()
    await eventually(_one_more_malformed_than(_malformed()), what="the request has ended")
    assert _internal_errors() == before
    assert gateway.ingest.seen == []


def _internal_errors() -> float:
    return REGISTRY.get_sample_value("pulsegate_errors_total", {"code": "INTERNAL"}) or 0


def _malformed() -> float:
    return REGISTRY.get_sample_value("pulsegate_errors_total", {"code": "MALFORMED_REQUEST"}) or 0


def _one_more_malformed_than(before: float) -> Callable[[], Awaitable[bool]]:
    async def one_more() -> bool:
        return _malformed() > before

    return one_more
