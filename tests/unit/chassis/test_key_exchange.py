"""Nobody outside chooses how long a handshake computes on the event loop."""

import ssl
from pathlib import Path

import pytest

from chassis import key_exchange
from tests.certificates import self_signed
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


def _asks_for_a_share(server: ssl.SSLContext, hello: bytes) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming.write(hello)
    connection = server.wrap_bio(incoming, outgoing, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()
