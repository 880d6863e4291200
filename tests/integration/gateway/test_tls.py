"""TLS at the gateway's own door."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chassis.settings import SettingsError
from services.gateway import tls
from services.gateway.tls import Certificate
from tests.certificates import PrivateKey, self_signed
from tests.client_hellos import FFDHE_8192, ClientHello
from tests.integration.gateway.running import Gateway, StartGateway
from tests.waiting import eventually


def _ec() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _rsa() -> PrivateKey:
    return rsa.generate_private_key(65537, 2048)


async def _shown(gateway: Gateway) -> str:
    """The common name of the certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port, ssl=context)
    name = _name_in(writer.get_extra_info("ssl_object"))
    writer.close()
    return name


async def test_the_public_port_speaks_tls_alone(start_gateway: StartGateway, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "first")
    async with start_gateway(tls_certificate=certificate, tls_key=key) as gateway:
        assert (await gateway.ingest_one(gateway.auth.new_key())).status == 202
        assert await _shown(gateway) == "first"
        with pytest.raises(aiohttp.ClientError):
            await gateway.session.get(f"http://127.0.0.1:{gateway.public_port}/health/live")


async def test_a_running_gateway_shows_the_pair_that_its_files_have_now(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_LOOK_SECONDS", 0.05)
    certificate, key = self_signed(tmp_path, "first")
    async with start_gateway(tls_certificate=certificate, tls_key=key) as gateway:
        assert await _shown(gateway) == "first"
        for new, old in zip(self_signed(tmp_path, "second"), (certificate, key), strict=True):
            new.replace(old)

        async def renewed() -> bool:
            return await _shown(gateway) == "second"

        await eventually(renewed, within_seconds=30)


async def test_a_client_that_never_shakes_hands_is_cut(start_gateway: StartGateway, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "first")
    async with start_gateway(tls_certificate=certificate, tls_key=key, slow_client_seconds=0.5) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("new_kind", [_ec, _rsa])
@pytest.mark.parametrize("old_kind", [_ec, _rsa])
def test_a_new_certificate_is_taken_and_a_faulty_one_is_not(
    tmp_path: Path, old_kind: Callable[[], PrivateKey], new_kind: Callable[[], PrivateKey]
) -> None:
    certificate, key = self_signed(tmp_path, "current", old_kind())
    held = Certificate(certificate, key)
    assert _names_in(held.context) == {"current"}
    new_certificate, new_key = self_signed(tmp_path, "renewed", new_kind())
    new_certificate.replace(certificate)
    held.renew()
    assert _names_in(held.context) == {"current"}  # the key is still another one's
    new_key.replace(key)
    held.renew()
    assert _names_in(held.context) == {"renewed"}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_with_a_session_from_before_a_renewal_is_shown_the_new_certificate(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    certificate, key = self_signed(tmp_path, "current", _ec())
    held = Certificate(certificate, key)
    client = _client(version)
    session = _handshake(client, held.context).session
    assert _handshake(client, held.context, session).session_reused
    for new, old in zip(self_signed(tmp_path, "renewed", _rsa()), (certificate, key), strict=True):
        new.replace(old)
    held.renew()
    assert _name_in(_handshake(client, held.context, session)) == "renewed"


def test_a_client_does_not_choose_how_long_a_handshake_computes(tmp_path: Path) -> None:
    server = Certificate(*self_signed(tmp_path, "current")).context
    hello = ClientHello.sent_by(ssl.create_default_context())
    incoming = ssl.MemoryBIO()
    incoming.write(hello.wanting(FFDHE_8192))
    with pytest.raises(ssl.SSLError, match=r"(?i)no suitable"):
        server.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()


def _names_in(server: ssl.SSLContext) -> set[str]:
    """What the server shows clients with and without a name for it, and those that know one kind of key."""
    names = {_name_in(_handshake(_client(), server, name=name)) for name in (None, "localhost")}
    for ciphers in ("aECDSA", "aRSA"):
        with suppress(ssl.SSLError):  # it has no certificate of this kind
            names.add(_name_in(_handshake(_client(ssl.TLSVersion.TLSv1_2, ciphers), server)))
    return names


def _client(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, ciphers: str = "DEFAULT") -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    return context


def _handshake(
    client: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None = None, name: str | None = None
) -> ssl.SSLObject:
    """The client's side of a handshake in memory, with the ticket that it got for the next one."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(to_server, to_client, server_side=True)
    here = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    for step in [here.do_handshake, there.do_handshake] * 3:
        with suppress(ssl.SSLWantReadError):
            step()
    with suppress(ssl.SSLWantReadError):
        here.read()
    return here


def _name_in(connection: ssl.SSLObject) -> str:
    """The common name of the certificate that a client was shown."""
    shown = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
    return str(shown.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


async def test_a_pair_that_is_none_is_refused_at_start(start_gateway: StartGateway, tmp_path: Path) -> None:
    certificate, _ = self_signed(tmp_path, "one")
    _, key = self_signed(tmp_path, "other")
    for pair in ((certificate, key), (certificate, None), (certificate, tmp_path / "nowhere")):
        with pytest.raises(SettingsError, match="PULSEGATE_TLS_KEY_PATH"):
            async with start_gateway(tls_certificate=pair[0], tls_key=pair[1]):
                pass
