"""A SAML 2.0 provider (npm's `samlify`), on a port of its own, which signs for real.

Fixture `saml_issuer` (session): a `SamlIssuer`.
"""

import html
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from yarl import URL

from deploy.local.layout import CHECKOUT, Ports
from deploy.local.programs import Program, probe_http
from tests.certificates import self_signed
from tests.suite_issuer import install_issuers
from tests.waiting import wait_for

_FOLDER = CHECKOUT / "tests" / "issuer"
_PROGRAMS = Path(sys.executable).parent


@dataclass(frozen=True)
class SamlIssuer:
    """A provider that runs."""

    url: str

    async def metadata(self) -> str:
        """As an administrator would download it."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metadata") as response:
            return await response.text()

    async def register(self, metadata: bytes) -> None:
        """Makes a service provider known, as an administrator would."""
        async with aiohttp.ClientSession() as session, session.post(f"{self.url}/sp", data=metadata) as response:
            assert response.status == 200

    async def sign_in(self, authorization_url: str, name: str) -> tuple[URL, Mapping[str, str]]:
        """Somebody signs in there: the form that their browser sends then, and where to."""
        address = URL(authorization_url).update_query(login=name)
        async with aiohttp.ClientSession() as session, session.get(address) as response:
            page = await response.text()
        [action] = re.findall(r'<form[^>]* action="([^"]+)"', page)
        fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
        return URL(html.unescape(action)), {field: html.unescape(value) for field, value in fields}


@pytest.fixture(scope="session")
def saml_issuer(lasting_port_blocks: Callable[[], Ports], data_folder: Path) -> Iterator[SamlIssuer]:
    install_issuers()
    port = lasting_port_blocks().public
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate, key_file = self_signed(data_folder, "saml-issuer", key)
    program = Program(
        name="saml-issuer",
        argv=tuple(map(str, (_PROGRAMS / "node", _FOLDER / "saml.mjs", port, key_file, certificate))),
        log=data_folder / "saml-issuer.log",
        ports={"http": port},
        probe=lambda: probe_http(port, "/metadata"),
    )
    process = program.start()
    try:
        wait_for(lambda: "SAML provider at" in program.log.read_text(), within_seconds=60, what="the provider is ready")
        yield SamlIssuer(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()
