"""A certified OpenID provider (npm's `oidc-provider`), on a port of its own.

Fixture `issuer` (session): an `Issuer`; `issuer.url`. It is installed from its lock file when it is needed first, by
the Node.js that builds the browser client. `Visitor` does there what a person does in a browser.
"""

import fcntl
import html
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import pytest
from yarl import URL

from deploy.local.layout import CHECKOUT, Ports
from deploy.local.programs import Program, probe_http
from tests.waiting import wait_for

_FOLDER = CHECKOUT / "tests" / "issuer"
_PROGRAMS = Path(sys.executable).parent
_MOST_STEPS = 12


@dataclass(frozen=True)
class Issuer:
    """An issuer that runs."""

    url: str

    async def register(self, redirect_uri: str) -> tuple[str, str]:
        """A new client's id and secret."""
        wanted = {"redirect_uris": [redirect_uri], "scope": "openid email profile groups"}
        async with aiohttp.ClientSession() as session, session.post(f"{self.url}/reg", json=wanted) as response:
            client = await response.json()
        return client["client_id"], client["client_secret"]


class Visitor:
    """A browser at the issuer, in which somebody signs in there and agrees to everything."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._cookies: dict[str, str] = {}

    async def sign_in(self, authorization_url: str) -> URL:
        """Where the issuer sends the browser back to."""
        begun = URL(authorization_url)
        address, form = begun, None
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            for _ in range(_MOST_STEPS):
                if address.origin() != begun.origin():
                    return address
                address, form = await self._step(session, address, form)
        raise AssertionError("the issuer does not send the browser back")

    async def _step(
        self, session: aiohttp.ClientSession, address: URL, form: dict[str, str] | None
    ) -> tuple[URL, dict[str, str] | None]:
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        method = "GET" if form is None else "POST"
        async with session.request(
            method, address, data=form, headers={"Cookie": cookies}, allow_redirects=False
        ) as response:
            for header in response.headers.getall("Set-Cookie", ()):
                self._cookies |= {name: morsel.value for name, morsel in SimpleCookie(header).items()}
            page = await response.text()
            if "Location" in response.headers:
                return URL(urljoin(str(address), response.headers["Location"])), None
            assert response.status == 200, page
        return self._filled_in(address, page)

    def _filled_in(self, address: URL, page: str) -> tuple[URL, dict[str, str]]:
        [action] = re.findall(r'<form[^>]* action="([^"]+)"', page)
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
        form = dict(hidden) | ({"login": self._name, "password": "any"} if 'name="login"' in page else {})
        return URL(urljoin(str(address), html.unescape(action))), form


@pytest.fixture(scope="session")
def issuer(lasting_port_blocks: Callable[[], Ports], data_folder: Path) -> Iterator[Issuer]:
    install_issuers()
    port = lasting_port_blocks().public
    program = Program(
        name="issuer",
        argv=(str(_PROGRAMS / "node"), str(_FOLDER / "issuer.mjs"), str(port)),
        log=data_folder / "issuer.log",
        ports={"http": port},
        probe=lambda: probe_http(port, "/.well-known/openid-configuration"),
    )
    process = program.start()
    try:
        wait_for(lambda: "issuer at" in program.log.read_text(), within_seconds=60, what="the issuer is ready")
        yield Issuer(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def install_issuers() -> None:
    """What the issuers of tests are made of: once; the tests of another process wait for it."""
    lock_file = _FOLDER / "package-lock.json"
    stamp = _FOLDER / "node_modules" / ".package-lock.json"
    with lock_file.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.stat().st_mtime >= lock_file.stat().st_mtime:
            return
        subprocess.run(
            [_PROGRAMS / "npm", "ci", "--ignore-scripts", "--loglevel=error", "--no-audit", "--no-fund"],
            cwd=_FOLDER,
            check=True,
            timeout=300,
            env={"PATH": f"{_PROGRAMS}:/usr/bin:/bin", "HOME": str(Path.home())},
        )
        stamp.touch()
