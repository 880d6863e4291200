"""Verification of principals: only what auth signed, for services, and until it expires."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import OKPAlgorithm

from chassis import principals
from chassis.breakers import upstream_fault
from chassis.errors import Forbidden, Unauthenticated, Unavailable
from chassis.principals import AUDIENCE, ISSUER, Principal, PrincipalVerifier
from tests.waiting import eventually


class SigningKeys:
    """auth's keys, as a verifier asks for them."""

    def __init__(self) -> None:
        self.keys = {"1": Ed25519PrivateKey.generate()}
        self.asked = 0
        self.away = False

    async def published(self) -> str:
        self.asked += 1
        if self.away:
            raise Unavailable("auth is away.")
        rendered = [
            {**OKPAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid} for kid, key in self.keys.items()
        ]
        return json.dumps({"keys": rendered})

    def sign(self, kid: str = "1", **changes: Any) -> str:
        return jwt.encode({**CLAIMS(), **changes}, self.keys[kid], algorithm="EdDSA", headers={"kid": kid})


def CLAIMS() -> dict[str, Any]:  # noqa: N802 - a constant but for the time
    return {
        "sub": "user-1",
        "kind": "user",
        "scopes": ["config:read"],
        "tid": "tenant-1",
        "pid": "project-1",
        "sid": "session-1",
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": int(time.time()) + 60,
    }


@pytest.fixture
def keys() -> SigningKeys:
    return SigningKeys()


@pytest.fixture
def verifier(keys: SigningKeys) -> PrincipalVerifier:
    return PrincipalVerifier(keys.published)


async def test_what_auth_signed_is_believed(keys: SigningKeys, verifier: PrincipalVerifier) -> None:
    principal = await verifier.verify(keys.sign())
    assert (principal.subject, principal.kind, principal.scopes) == ("user-1", "user", frozenset({"config:read"}))
    assert (principal.tenant_id, principal.project_id, principal.session_id) == ("tenant-1", "project-1", "session-1")


async def test_a_principal_of_an_account_names_no_project(keys: SigningKeys, verifier: PrincipalVerifier) -> None:
    claims = {name: value for name, value in CLAIMS().items() if name not in ("tid", "pid", "sid")}
    token = jwt.encode(claims, keys.keys["1"], algorithm="EdDSA", headers={"kid": "1"})
    principal = await verifier.verify(token)
    assert (principal.tenant_id, principal.project_id, principal.session_id) == ("", "", "")


def part(claims: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


def unsigned(algorithm: str, **header: Any) -> str:
    return f"{part({'alg': algorithm, 'typ': 'JWT', 'kid': '1', **header})}.{part(CLAIMS())}"


def signed_with_the_public_key(keys: SigningKeys) -> str:
    """The classic confusion: the public key's bytes used as a secret."""
    text = unsigned("HS256")
    secret = keys.keys["1"].public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


FORGERIES = {
    "for somebody else": lambda keys: keys.sign(aud="pulsegate"),
    "for somebody else, and expired": lambda keys: keys.sign(aud="pulsegate", exp=int(time.time()) - 1),
    "for nobody": lambda keys: keys.sign(aud=None),
    "by another issuer": lambda keys: keys.sign(iss="somebody"),
    "of nobody": lambda keys: keys.sign(sub=None),
    "without an end": lambda keys: keys.sign(exp=None),
    "not yet valid": lambda keys: keys.sign(nbf=int(time.time()) + 60),
    "algorithm none": lambda keys: f"{unsigned('none')}.",
    "algorithm None": lambda keys: f"{unsigned('None')}.",
    "HS256 with the public key": signed_with_the_public_key,
    "unknown algorithm": lambda keys: f"{unsigned('XX')}.AAAA",
    "no signature": lambda keys: f"{unsigned('EdDSA')}.",
    "signed by another key": lambda keys: jwt.encode(
        CLAIMS(), Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": "1"}
    ),
    "changed afterwards": lambda keys: ".".join(
        (keys.sign().split(".")[0], part({**CLAIMS(), "tid": "tenant-2"}), keys.sign().split(".")[2])
    ),
    "foreign kid": lambda keys: jwt.encode(CLAIMS(), keys.keys["1"], algorithm="EdDSA", headers={"kid": "9"}),
    "no kid": lambda keys: jwt.encode(CLAIMS(), keys.keys["1"], algorithm="EdDSA"),
    "kid of another type": lambda keys: f"{unsigned('EdDSA', kid=['1'])}.AAAA",
    "no JWT": lambda keys: "anything",
    "empty parts": lambda keys: "..",
    "no text": lambda keys: "\x00",
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES.keys())
async def test_anything_else_is_not(forgery: Any, keys: SigningKeys, verifier: PrincipalVerifier) -> None:
    with pytest.raises(Unauthenticated):
        await verifier.verify(forgery(keys))


async def test_a_genuine_one_that_has_expired_speaks_against_clocks_and_not_against_the_caller(
    keys: SigningKeys, verifier: PrincipalVerifier
) -> None:
    with pytest.raises(Unavailable) as refused:
        await verifier.verify(keys.sign(exp=int(time.time()) - 1))
    assert (refused.value.details, refused.value.retry_after_seconds) == ({"waitingFor": "clock"}, 1.0)
    assert not upstream_fault(refused.value), "other calls to the service may bring principals that hold longer"


async def test_keys_named_inside_of_the_token_are_not_used(keys: SigningKeys, verifier: PrincipalVerifier) -> None:
    own = Ed25519PrivateKey.generate()
    jwk = OKPAlgorithm.to_jwk(own.public_key(), as_dict=True)
    headers = {"kid": "1", "jwk": jwk, "jku": "https://evil.example/jwks.json"}
    with pytest.raises(Unauthenticated):
        await verifier.verify(jwt.encode(CLAIMS(), own, algorithm="EdDSA", headers=headers))


async def test_a_principal_is_verified_once_and_still_expires(keys: SigningKeys, verifier: PrincipalVerifier) -> None:
    token = keys.sign(exp=int(time.time()) + 2)
    first = await verifier.verify(token)
    assert await verifier.verify(token) is first

    async def refused() -> bool:
        try:
            await verifier.verify(token)
        except Unavailable:
            return True
        return False

    await eventually(refused, within_seconds=4)


async def test_a_new_key_is_asked_for_and_unknown_ones_do_not_make_a_flood(
    keys: SigningKeys, verifier: PrincipalVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    await verifier.verify(keys.sign())
    keys.keys["2"] = Ed25519PrivateKey.generate()
    for _ in range(100):
        with pytest.raises(Unauthenticated):
            await verifier.verify(keys.sign("2"))
    assert keys.asked == 1
    later = time.monotonic() + 6
    monkeypatch.setattr(time, "monotonic", lambda: later)
    await verifier.verify(keys.sign("2"))
    assert keys.asked == 2


async def test_while_auth_is_away_known_keys_go_on(keys: SigningKeys, verifier: PrincipalVerifier) -> None:
    await verifier.verify(keys.sign())
    keys.away = True
    await verifier.verify(keys.sign(sub="user-2"))
    with pytest.raises(Unavailable):
        await PrincipalVerifier(keys.published).verify(keys.sign())


def principal(**changes: Any) -> Principal:
    made = {"subject": "s", "kind": "secret", "scopes": frozenset({"config:read"}), "expires_at": 0.0}
    return Principal(**{**made, **changes})


def test_a_missing_scope_is_told_in_the_words_of_who_lacks_it() -> None:
    principal().require("config:read")
    with pytest.raises(Forbidden, match="key") as of_a_key:
        principal().require("config:write")
    assert of_a_key.value.code == "INSUFFICIENT_SCOPE"
    with pytest.raises(Forbidden, match="role") as of_a_person:
        principal(kind="user").require("config:write")
    assert of_a_person.value.code == "FORBIDDEN"


def test_outside_of_a_call_there_is_no_principal() -> None:
    with pytest.raises(Unauthenticated):
        principals.current()


def test_a_principal_of_an_account_is_not_enough_where_a_project_is_needed() -> None:
    token = principals.CURRENT.set(principal())
    try:
        with pytest.raises(Unauthenticated, match="project"):
            principals.current_of_project()
    finally:
        principals.CURRENT.reset(token)
