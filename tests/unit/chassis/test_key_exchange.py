"""Nobody outside chooses how long a handshake computes on the event loop."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from chassis import key_exchange
from tests.certificates import chain, self_signed
from tests.client_hellos import FFDHE_8192, P_256, ClientHello


def test_a_client_offers_one_curve_and_no_finite_fields() -> None:
    assert ClientHello.sent_by(ssl.create_default_context()).lets_the_server_choose_how_long_it_computes
    limited = ClientHello.sent_by(key_exchange.limited(ssl.create_default_context()))
    assert not limited.lets_the_server_choose_how_long_it_computes
    assert limited.groups == (P_256,)


def test_a_server_computes_over_no_finite_field_that_a_client_wants(tmp_path: Path) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*self_signed(tmp_path, "server"))
    hello = ClientHello.sent_by(ssl.create_default_context())
    for group in (P_256, FFDHE_8192):
        assert _asks_for_a_share(server, hello.wanting(group))
    key_exchange.limited(server)
    assert _asks_for_a_share(server, hello.wanting(P_256))
    with pytest.raises(ssl.SSLError, match=r"(?i)no suitable|no shared|handshake failure"):
        _asks_for_a_share(server, hello.wanting(FFDHE_8192))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("starts_later", [False, True])
def test_a_server_does_not_choose_how_many_certificates_are_verified(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop], starts_later: bool
) -> None:
    """They are one after the other, and each may take five milliseconds."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(_heard_from_a_server(tmp_path, 4, starts_later)) == b"hello"
        with pytest.raises(ssl.SSLError, match="16384 bytes before the handshake is over"):
            runner.run(_heard_from_a_server(tmp_path, 74, starts_later))


@pytest.mark.parametrize("purpose", ssl.Purpose)
def test_a_connection_has_one_handshake(purpose: ssl.Purpose) -> None:
    """Others would be made of what is read later."""
    assert key_exchange.limited(ssl.create_default_context(purpose)).options & ssl.OP_NO_RENEGOTIATION


async def _heard_from_a_server(folder: Path, certificates: int, starts_later: bool) -> bytes:
    """What a server with so many certificates says after a handshake, which may be asked for on an open connection."""
    certificate, key, authority = chain(folder, certificates)
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(certificate, key)
    client_context = key_exchange.limited(ssl.create_default_context(cadata=authority))

    async def served(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if starts_later:
            await writer.start_tls(server_context)
        writer.write(b"hello")

    server = await asyncio.start_server(served, "127.0.0.1", ssl=None if starts_later else server_context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=None if starts_later else client_context)
        if starts_later:
            await writer.start_tls(client_context, server_hostname="127.0.0.1")
        try:
            return await reader.readexactly(5)
        finally:
            writer.transport.abort()


def _asks_for_a_share(server: ssl.SSLContext, hello: bytes) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming.write(hello)
    connection = server.wrap_bio(incoming, outgoing, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()
