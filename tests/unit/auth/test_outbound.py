"""Where requests may go that a tenant asks for: names are judged by what they stand for."""

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from services.auth.conversations import ASKED_FOR
from services.auth.errors import OutOfReach, ProviderAway, TooManyLookups, UnsafeAddress
from services.auth.outbound import Outbound, Reach, reaching
from tests import client_hellos
from tests.certificates import self_signed
from tests.waiting import eventually


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),  # noqa: S104 - judged, not bound
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("fec0::1", False),
        ("::ffff:0:127.0.0.1", False),
        ("::127.0.0.1", False),
    ],
)
def test_private_addresses_are_out_of_reach_in_whatever_form(address: str, allowed: bool) -> None:
    assert Reach(()).allows(address) is allowed


def test_an_operator_may_allow_a_network_and_no_more() -> None:
    reach = Reach((ip_network("10.0.0.0/8"), ip_network("127.0.0.1")))
    assert reach.require("https://10.0.0.1/x").host == "10.0.0.1"
    assert reach.require("http://127.0.0.1:8080").port == 8080
    for refused in ("http://10.0.0.1", "https://192.168.0.1", "http://127.0.0.2", "https://u:p@login.example.com"):
        with pytest.raises(UnsafeAddress):
            reach.require(refused)


@pytest.mark.parametrize("name", ["localhost", "127.1", "0x7f.1", "2130706433"])
async def test_a_name_that_stands_for_a_private_address_is_not_asked(name: str) -> None:
    async with reaching(()) as outbounds:
        with pytest.raises(ProviderAway) as error:
            await outbounds.inside.get(f"https://{name}/.well-known/openid-configuration")
    assert any(reason in error.value.cause for reason in ("PULSEGATE_SSO_PRIVATE_NETWORKS", "not a canonical"))
    assert name not in error.value.message


async def test_a_name_in_a_network_that_was_allowed_is_asked_by_who_may_go_inside_alone() -> None:
    async with reaching((ip_network("127.0.0.0/8"), ip_network("::1"))) as outbounds:
        with pytest.raises(ProviderAway) as error:
            await outbounds.inside.get("https://localhost:1/")
        assert "PRIVATE_NETWORKS" not in error.value.cause
        with pytest.raises(OutOfReach):
            await outbounds.public.get("https://localhost:1/")


async def test_what_a_provider_has_us_keep_is_sent_to_nobody() -> None:
    async with reaching(()) as outbounds:
        for outbound in (outbounds.public, outbounds.inside):
            outbound._session.cookie_jar.update_cookies({"of": "a tenant; Domain=example.com"})
            assert not outbound._session.cookie_jar.filter_cookies(URL("https://login.example.com"))
            assert not list(outbound._session.cookie_jar)


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Nobody answers for names below slow.example; which ones were looked up."""
    over, answered, asked = threading.Event(), socket.getaddrinfo, list[str]()

    def looked_up(host: str, *rest: Any, **also: Any) -> Any:
        if not host.endswith(".slow.example"):
            return answered(host, *rest, **also)
        asked.append(host)
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    yield asked
    over.set()


async def test_names_that_nobody_answers_for_take_no_threads_of_others(slow_names: list[str]) -> None:
    async def all_begun() -> bool:
        return len(slow_names) == 64

    async def ask(outbound: Outbound, number: int) -> None:
        ASKED_FOR.set(f"tenant {number}")
        await outbound.get(f"https://{number}.slow.example/")

    async with reaching(()) as outbounds:
        # The last have connections of their own.
        requests = [(outbounds.public if number < 64 else outbounds.inside, number) for number in range(68)]
        waiting = asyncio.gather(*(ask(*request) for request in requests), return_exceptions=True)
        await eventually(all_begun, within_seconds=2, what="as many lookups as there are threads")
        await asyncio.wait_for(asyncio.to_thread(lambda: None), 1)
        with pytest.raises(TooManyLookups):
            await outbounds.inside.get("https://another.slow.example/")
        outcomes = Counter(type(outcome) for outcome in await waiting)
        assert outcomes == {ProviderAway: 64, TooManyLookups: 4}  # nobody waits for longer than a while


async def test_names_that_nobody_answers_for_of_four_tenants_leave_threads_to_others(slow_names: list[str]) -> None:
    async def ask(tenant_id: str, name: str) -> None:
        ASKED_FOR.set(tenant_id)
        await outbounds.public.get(f"https://{name}.slow.example/")

    async def another_is_asked() -> bool:
        return "another.slow.example" in slow_names

    async with reaching(()) as outbounds:
        waiting = [asyncio.create_task(ask(f"tenant {number % 4}", str(number))) for number in range(64)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert 16 < len(slow_names) < 48
        waiting.append(asyncio.create_task(ask("another", "another")))
        await eventually(another_is_asked, within_seconds=2, what="others' names are looked up")
        outcomes = Counter(type(outcome) for outcome in await asyncio.gather(*waiting, return_exceptions=True))
        assert outcomes == {ProviderAway: len(slow_names), TooManyLookups: 65 - len(slow_names)}


_EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def _answering(said: bytes, hung_up: asyncio.Event | None = None) -> AsyncIterator[tuple[Outbound, str]]:
    """A provider that says this to whatever it is asked, and where it is."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        with suppress(ConnectionError):
            await reader.read()
        if hung_up is not None:
            hung_up.set()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server, reaching((ip_network("127.0.0.1"),)) as reach:
        yield reach.inside, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_a_provider_that_has_answered_is_not_listened_to_any_more() -> None:
    hung_up = asyncio.Event()
    async with _answering(_EMPTY, hung_up) as (outbound, url):
        assert await outbound.get(url) == {}
        await asyncio.wait_for(hung_up.wait(), 1)


async def test_a_provider_does_not_choose_how_long_a_handshake_computes() -> None:
    async with client_hellos.heard() as (port, hellos), reaching((ip_network("127.0.0.1"),)) as outbounds:
        with pytest.raises(ProviderAway):
            await outbounds.inside.get(f"https://127.0.0.1:{port}/")
    assert [hello.lets_the_server_choose_how_long_it_computes for hello in hellos] == [False]


#: Asks on the event loop that services run on, says what came of it, and stays.
_ASKING = """
import asyncio, ipaddress, sys
from chassis.runner import run_loop
from services.auth.errors import ProviderAway
from services.auth.outbound import reaching

async def ask() -> None:
    async with reaching((ipaddress.ip_network("127.0.0.1"),)) as outbounds:
        try:
            print(await outbounds.inside.get(sys.argv[1]), flush=True)
        except ProviderAway:
            print("away", flush=True)
        await asyncio.sleep(60)

run_loop(ask())
"""
_ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n"


def _talk(listening: socket.socket, tls: ssl.SSLContext, said: bytes, ended: list[float]) -> None:
    """A provider that goes on for as long as somebody listens, and never closes a connection."""
    with tls.wrap_socket(listening.accept()[0], server_side=True) as connection:
        connection.recv(1 << 16)
        with suppress(OSError):
            connection.sendall(said)
            while True:
                connection.sendall(b"\r\n")
                time.sleep(0.01)
        ended.append(time.monotonic())


@pytest.mark.parametrize(
    ("said", "outcome"),
    [(_EMPTY, b"{}"), (_ENDLESS + bytes(1 << 19), b"away"), (_ENDLESS, b"away")],
    ids=["answered", "too long", "too slow"],
)
def test_a_provider_is_not_listened_to_any_more_though_it_goes_on_over_tls(
    tmp_path: Path, said: bytes, outcome: bytes
) -> None:
    certificate, key = self_signed(tmp_path, "provider")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    ended: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        talking = threading.Thread(target=_talk, args=(listening, tls, said, ended), daemon=True)
        talking.start()
        command = [sys.executable, "-c", _ASKING, f"https://127.0.0.1:{listening.getsockname()[1]}/"]
        environment = os.environ | {"SSL_CERT_FILE": str(certificate)}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as asking:
            try:
                assert asking.stdout is not None
                assert asking.stdout.readline().strip() == outcome
                answered = time.monotonic()
                talking.join(10)
                assert ended
                assert ended[0] - answered < 1
            finally:
                asking.kill()


async def test_answers_that_nobody_asked_for_take_little_memory() -> None:
    async with _answering(_EMPTY + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 5000) as (outbound, url):
        tracemalloc.start()
        try:
            assert await outbound.get(url) == {}
            assert tracemalloc.get_traced_memory()[1] < 3 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("headers", [b"a: 1\r\n" * 70, b"a: " + b"x" * 5000 + b"\r\n"])
async def test_more_headers_than_anybody_needs_are_not_read(headers: bytes) -> None:
    async with _answering(_EMPTY.replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n")) as (outbound, url):
        with pytest.raises(ProviderAway):
            await outbound.get(url)


async def test_an_answer_is_read_up_to_its_largest_size() -> None:
    for size, taken in ((1 << 18, True), ((1 << 18) + 1, False)):
        said = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + b"{}".ljust(size)
        async with _answering(said) as (outbound, url):
            if taken:
                assert await outbound.get(url) == {}
                continue
            with pytest.raises(ProviderAway):
                await outbound.get(url)
