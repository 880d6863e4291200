"""Access tokens that somebody made or changed, tokens in the wrong place, and refresh tokens in many hands."""

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e.api import Api, Project

pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

Claims = dict[str, Any]


def _part(value: Any) -> str:
    return _unpadded(json.dumps(value).encode())


def _unpadded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def jwk(api_of_the_module: Api) -> dict[str, str]:
    """The public key that the newest access tokens are signed with."""
    keys = (await api_of_the_module.call("GET", "/.well-known/jwks.json")).json["keys"]
    return dict(keys[0])


def _forgeries(token: str, jwk: dict[str, str]) -> dict[str, str]:
    """By what was done: tokens that say what the true one says, or more."""
    header, claims = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
    mine, (head, body, signature) = Ed25519PrivateKey.generate(), token.split(".")
    public = base64.urlsafe_b64decode(jwk["x"] + "==")

    def signed(**more: Any) -> str:
        return jwt.encode(claims, mine, algorithm="EdDSA", headers={**header, **more})

    def by_hmac(secret: bytes) -> str:
        text = f"{_part({**header, 'alg': 'HS256'})}.{body}"
        return f"{text}.{_unpadded(hmac.digest(secret, text.encode(), hashlib.sha256))}"

    mine_as_jwk = json.loads(jwt.get_algorithm_by_name("EdDSA").to_jwk(mine.public_key()))
    return {
        "no signature": f"{_part({**header, 'alg': 'none'})}.{body}.",
        "no signature, in other letters": f"{_part({**header, 'alg': 'nOnE'})}.{body}.",
        "signature left out": f"{head}.{body}.",
        "HS256 with the public key": by_hmac(public),
        "HS256 with the public key as JSON": by_hmac(json.dumps(jwk).encode()),
        "another's key under the known kid": signed(),
        "another's key under a foreign kid": signed(kid="mine"),
        "a kid that is a path": signed(kid="../../../../dev/null"),
        "a kid that is SQL": signed(kid="' OR 1=1 --"),
        "another's key, brought along": signed(jwk=mine_as_jwk),
        "another's key, by jku": signed(jku="https://evil.test/jwks.json"),
        "another's key, by x5u": signed(x5u="https://evil.test/chain.pem"),
        "a critical header": signed(crit=["b64"], b64=False),
        "another's claims": f"{head}.{_part({**claims, 'sub': '01900000-0000-7000-8000-000000000000'})}.{signature}",
        "a later end": f"{head}.{_part({**claims, 'exp': 4_000_000_000})}.{signature}",
        "a signature that is zeros": f"{head}.{body}.{'A' * len(signature)}",
        "two of them": f"{token}.{token}",
        "very long": f"{head}.{'A' * 6000}.{signature}",
    }


async def test_no_forged_token_is_believed(
    api_of_the_module: Api, shared_project: Project, jwk: dict[str, str]
) -> None:
    faults = []
    for what, forged in _forgeries(shared_project.token, jwk).items():
        for path in ("/api/v1/auth/me", f"/api/v1/projects/{shared_project.id}/metrics"):
            answer = await api_of_the_module.call("GET", path, credential=forged)
            if (answer.status, answer.code) != (401, "UNAUTHENTICATED"):
                faults.append(f"{what}: {answer.status} {answer.text}")
    assert not faults, "\n".join(faults)
    await api_of_the_module.expect(200, "GET", "/api/v1/auth/me", credential=shared_project.token)


@pytest.mark.parametrize("scheme", ["Basic", "Token", "JWT", ""])
async def test_a_good_token_of_another_scheme_is_none(
    api_of_the_module: Api, shared_project: Project, scheme: str
) -> None:
    headers = {"Authorization": f"{scheme} {shared_project.token}"}
    answer = await api_of_the_module.call("GET", "/api/v1/auth/me", headers=headers)
    assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")


async def test_a_token_that_is_for_refreshing_opens_no_door(api_of_the_module: Api, shared_project: Project) -> None:
    answer = await api_of_the_module.call("GET", "/api/v1/auth/me", credential=shared_project.refresh_token)
    assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")
    body = {"refreshToken": shared_project.token}
    exchanged = await api_of_the_module.call("POST", "/api/v1/auth/refresh", body)
    assert (exchanged.status, exchanged.code) == (401, "UNAUTHENTICATED")
