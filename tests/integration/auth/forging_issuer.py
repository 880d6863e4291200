"""An OpenID provider that lies as it is told to: discovery, keys and tokens are what a test makes of them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from yarl import URL

from chassis.clock import SystemClock

CLIENT_ID = "pulsegate"

_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_EC_KEY = ec.generate_private_key(ec.SECP256R1())
#: Of somebody else.
FOREIGN_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


async def _nothing() -> None:
    """Nothing happens."""


class ForgingIssuer:
    """Honest, unless a test changes something."""

    def __init__(self) -> None:
        self.url = ""
        self.rsa_key, self.ec_key = _RSA_KEY, _EC_KEY
        #: Milliseconds.
        self.now: Callable[[], int] = SystemClock().now_ms
        self.keys: list[dict[str, Any]] = [self.jwk(self.rsa_key, "1")]
        #: In place of what discovery says.
        self.discovery: dict[str, Any] = {}
        #: In place of what the ID token says; None leaves a claim out.
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {"kid": "1"}
        self.algorithm = "RS256"
        self.signing_key: Any = self.rsa_key
        #: The whole answer to a code, where that is not an ID token.
        self.answer: web.Response | None = None
        #: What happens while a code is exchanged.
        self.before_token: Callable[[], Awaitable[None]] = _nothing
        #: The same while discovery is read.
        self.before_discovery: Callable[[], Awaitable[None]] = _nothing
        #: And while keys are.
        self.before_keys: Callable[[], Awaitable[None]] = _nothing
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.authorization = ""

    def jwk(self, key: Any, key_id: str) -> dict[str, Any]:
        algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
        return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig"}

    def requests(self, path: str) -> list[dict[str, str]]:
        return [form for asked, form in self.asked if asked == path]

    def send(self, authorization_url: str, **claims: Any) -> str:
        """What a person does who signs in there; the code."""
        asked = URL(authorization_url).query
        self.claims = {"nonce": asked["nonce"], **claims}
        return "code"

    def id_token(self) -> str:
        now = self.now() // 1000
        honest = {
            "iss": self.url,
            "sub": "248289761001",
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "email": "eve@example.com",
            "email_verified": True,
            "groups": ["staff"],
        }
        claims = {name: value for name, value in {**honest, **self.claims}.items() if value is not None}
        return jwt.encode(claims, self.signing_key, algorithm=self.algorithm, headers=self.header)

    async def answered(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append((request.path, form))
        if request.path == "/.well-known/openid-configuration":
            await self.before_discovery()
            return web.json_response(self._metadata())
        if request.path == "/keys":
            await self.before_keys()
            return web.json_response({"keys": self.keys})
        if request.path == "/missing":
            return web.json_response({}, status=404)
        if request.path == "/token":
            await self.before_token()
            self.authorization = request.headers.get("Authorization", "")
            return self.answer or web.json_response({"id_token": self.id_token(), "access_token": "at"})
        if request.path == "/elsewhere":
            raise web.HTTPFound("http://169.254.169.254/latest/meta-data/")
        return web.Response(body=b"x" * ((1 << 18) + 1))

    def _metadata(self) -> dict[str, Any]:
        honest = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?tenant=common",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "authorization_response_iss_parameter_supported": True,
        }
        return {name: value for name, value in {**honest, **self.discovery}.items() if value is not None}


@asynccontextmanager
async def forging_issuer() -> AsyncIterator[ForgingIssuer]:
    issuer = ForgingIssuer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", issuer.answered)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield issuer
    finally:
        await runner.cleanup()
