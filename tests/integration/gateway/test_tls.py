"""TLS at the gateway's own door."""

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from chassis.settings import SettingsError
from services.gateway import tls
from services.gateway.tls import Certificate
from tests.certificates import self_signed
from tests.integration.gateway.running import Gateway, StartGateway
from tests.waiting import eventually


async def _shown(gateway: Gateway) -> str:
    """The common name of the certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port, ssl=context)
    shown = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    writer.close()
    return str(shown.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


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


def test_a_new_certificate_is_taken_and_a_faulty_one_is_not(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "current")
    held = Certificate(certificate, key)
    assert _name_in(held.context) == "current"
    new_certificate, new_key = self_signed(tmp_path, "renewed")
    new_certificate.replace(certificate)
    held.renew()
    assert _name_in(held.context) == "current"  # the key is still another one's
    new_key.replace(key)
    held.renew()
    assert _name_in(held.context) == "renewed"


def _name_in(server: ssl.SSLContext) -> str:
    """What a handshake in memory shows of the server's certificate."""
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(to_server, to_client, server_side=True)
    here = client.wrap_bio(to_client, to_server)
    for side in (here, there, here):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    shown = x509.load_der_x509_certificate(here.getpeercert(binary_form=True) or b"")
    return str(shown.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


async def test_a_pair_that_is_none_is_refused_at_start(start_gateway: StartGateway, tmp_path: Path) -> None:
    certificate, _ = self_signed(tmp_path, "one")
    _, key = self_signed(tmp_path, "other")
    for pair in ((certificate, key), (certificate, None), (certificate, tmp_path / "nowhere")):
        with pytest.raises(SettingsError, match="PULSEGATE_TLS_KEY_PATH"):
            async with start_gateway(tls_certificate=pair[0], tls_key=pair[1]):
                pass
