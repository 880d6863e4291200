"""Slow and broken clients, and bytes that are no HTTP: they are cut, and others do not notice."""

import asyncio
import re
from typing import Any

import pytest

from contracts.pulsegate.auth.v1 import accounts_pb2
from tests.integration.gateway.running import Gateway, StartGateway
from tests.waiting import eventually


async def exchange(gateway: Gateway, sent: bytes, *, within_seconds: float = 5.0) -> bytes:
    """Sends bytes and returns everything until the gateway closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
    try:
        writer.write(sent)
        async with asyncio.timeout(within_seconds):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "request_bytes",
    [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/1.1\r\nbroken\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"],
)
async def test_what_is_no_http_is_answered_in_the_one_shape(gateway: Gateway, request_bytes: bytes) -> None:
    answer = await exchange(gateway, request_bytes)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert b"x-correlation-id" in head.lower()
    assert b"MALFORMED_REQUEST" in body


async def test_conflicting_lengths_are_refused(gateway: Gateway) -> None:
    answer = await exchange(
        gateway,
        b"POST /api/v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    )
    assert b" 400 " in answer.split(b"\r\n")[0]


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"POST /api/v1/metrics HTTP/1.1\r\n",
        b"POST /api/v1/metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ",
    ],
)
async def test_a_client_that_is_slow_with_its_headers_is_cut(start_gateway: StartGateway, beginning: bytes) -> None:
    async with start_gateway(slow_client_seconds=0.3) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
        writer.write(beginning)
        async with asyncio.timeout(3):
            while True:
                try:
                    if not await reader.read(65_536):
                        break
                except ConnectionResetError:
                    break
        writer.close()


async def test_a_client_that_trickles_its_headers_is_cut(start_gateway: StartGateway) -> None:
    async with start_gateway(slow_client_seconds=0.3) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        cut = asyncio.create_task(reader.read())
        for number in range(60):
            writer.write(f"X-{number}: y\r\n".encode())
            done, _ = await asyncio.wait([cut], timeout=0.05)
            if done:
                break
        assert cut.done()
        assert isinstance(cut.exception(), ConnectionResetError) or cut.result() == b""


async def test_a_client_that_is_slow_with_its_body_is_cut(start_gateway: StartGateway) -> None:
    async with start_gateway(slow_client_seconds=0.3) as gateway:
        key = gateway.auth.new_key()
        head = f"POST /api/v1/metrics HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
        answer = await exchange(gateway, f"{head}Content-Length: 100\r\n\r\n{{".encode(), within_seconds=3)
        assert answer == b""
        assert gateway.ingest.seen == []


async def test_what_a_body_takes_to_arrive_is_no_time_of_the_gateway(start_gateway: StartGateway) -> None:
    quick = (
        'pulsegate_http_request_duration_seconds_bucket{le="0.5",method="POST",route="/api/v1/metrics",status="202"}'
    )
    async with start_gateway(request_timeout_seconds=1.0) as gateway:
        key = gateway.auth.new_key()
        assert (await gateway.ingest_one(key)).status == 202
        before = await gateway.shown(quick)
        reader, writer = await beginning(gateway, key, b'{"metrics":[', size=14)
        await asyncio.sleep(1.2)
        writer.write(b"]}")
        assert (await reader.readline()).split()[1] == b"202"
        writer.close()
        assert await gateway.shown(quick) == before + 1


@pytest.mark.parametrize(
    ("principal_seconds", "revoked", "status"),
    [
        pytest.param(3.0, False, b"202", id="the principal has expired meanwhile"),
        pytest.param(120.0, True, b"401", id="the key was revoked meanwhile"),
    ],
)
async def test_who_calls_is_asked_anew_after_a_body_that_took_long(
    start_gateway: StartGateway, principal_seconds: float, revoked: bool, status: bytes
) -> None:
    async with start_gateway() as gateway:
        gateway.auth.principal_seconds = principal_seconds
        key = gateway.auth.new_key()
        reader, writer = await beginning(gateway, key, b'{"metrics":[', size=14)
        await eventually(lambda: was_asked(gateway), what="the key is known")
        if revoked:
            gateway.auth.revoke(key)
        await asyncio.sleep(3.1)
        writer.write(b"]}")
        assert (await reader.readline()).split()[1] == status
        writer.close()


async def was_asked(gateway: Gateway) -> bool:
    return gateway.auth.asked > 0


async def test_bodies_that_arrive_slowly_take_a_bounded_part_of_the_memory(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.middlewares._MOST_BODY_BYTES", 4 << 20)
    async with start_gateway() as gateway:
        key, other = gateway.auth.new_key(), gateway.auth.new_key()
        gateway.auth.move(other, "0192f0c1-0000-7000-8000-0000000000a1")

        async def held(least: int, most: int) -> bool:
            return least <= await gateway.shown('pulsegate_gateway_held_bytes{what="bodies"}') <= most

        async def send(credential: str, **body: Any) -> int:
            headers = {"Content-Type": "application/json"}
            answer = await gateway.call("POST", "/api/v1/metrics", credential=credential, headers=headers, **body)
            return answer.status

        first, second = await beginning(gateway, key, bytes(700_000)), await beginning(gateway, key, bytes(300_000))
        await eventually(lambda: held(1_000_000, 1 << 20), what="the tenant holds nearly all that it may")
        assert await send(key, data=bytes(400_000)) == 503
        assert await send(other, data=bytes(400_000)) == 202
        assert await send(key, json={"metrics": []}) == 202  # what is here at once
        for _, writer in (first, second):
            writer.transport.abort()
        await eventually(lambda: held(0, 0), what="nothing is held for those who left")
        assert await send(key, data=bytes(400_000)) == 202


async def beginning(
    gateway: Gateway, key: str, body: bytes, *, size: int = 1 << 20
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has sent the beginning of a body of that size."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
    head = f"POST /api/v1/metrics HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {size}\r\n\r\n".encode() + body)
    await writer.drain()
    return reader, writer


async def test_an_idle_connection_and_a_slow_service_are_not_cut(start_gateway: StartGateway) -> None:
    async with start_gateway(slow_client_seconds=0.3) as gateway:

        async def a_slow_client_is_cut() -> None:
            assert await exchange(gateway, b"GET / HTTP/1.1\r\nX-A: b") == b""

        async def slowly(_request: object) -> accounts_pb2.GetMeResponse:
            await a_slow_client_is_cut()
            return accounts_pb2.GetMeResponse()

        gateway.auth.answers["GetMe"] = slowly
        session = gateway.auth.new_session()
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
        request = f"GET /api/v1/auth/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {session}\r\n\r\n".encode()
        for _ in range(2):  # the second one after an idle while
            writer.write(request)
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                assert head.startswith(b"HTTP/1.1 200 ")
                assert length is not None
                await reader.readexactly(int(length[1]))
            await a_slow_client_is_cut()
        writer.close()


async def test_a_thousand_idle_connections_do_not_keep_others_out(gateway: Gateway) -> None:
    idle = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", gateway.public_port) for _ in range(1000)))
    try:
        answers = await asyncio.gather(*(gateway.ingest_one(gateway.auth.new_key()) for _ in range(20)))
        assert {answer.status for answer in answers} == {202}
    finally:
        for _, writer in idle:
            writer.close()
