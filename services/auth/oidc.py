"""Signing in by OpenID Connect: the authorization code flow with PKCE, as a client (OpenID Connect Core, RFC 9700)."""

import base64
import hmac
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import jwt
from yarl import URL

from chassis.clock import Clock
from services.auth.discovery import Discovery, Metadata, remember
from services.auth.domain import email_fault
from services.auth.errors import ProviderAway, SignOnFailed, TooManyGroups
from services.auth.identity_providers import ProviderOf, Vouched
from services.auth.provider_settings import OidcSettings
from services.auth.sign_on_secrets import SignOnSecrets

OidcProvider = ProviderOf[OidcSettings]

#: What an ID token may be signed with: never `none`, never a secret that two sides share. By type of key.
_ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}

_KEYS_SECONDS = 600.0
#: An unknown key makes us read the provider's keys again, at most this often.
_KEYS_AGAIN_SECONDS = 10.0
_SKEW_SECONDS = 60
_MOST_SUBJECT_CHARACTERS = 255
_MOST_GROUPS = 1000
#: What is read of a key: the members of a private one would be computed with, for as long as whoever made them likes.
_PUBLIC_MEMBERS = ("kty", "n", "e", "crv", "x", "y", "kid", "use", "alg")
#: As many as the modulus of an RSA key of 8192 bits has, and some.
_MOST_MEMBER_CHARACTERS = 1400
_MOST_KEYS = 100
#: Of all providers.
_MOST_KEYS_CACHED = 1000


@dataclass(frozen=True, kw_only=True)
class Keys:
    """A provider's public keys."""

    by_id: tuple[jwt.PyJWK, ...]
    read_at: float

    @property
    def size(self) -> int:
        return len(self.by_id)


@dataclass(frozen=True, kw_only=True)
class Returned:
    """What a browser brought back from its provider."""

    code: str
    #: RFC 9207; empty where it was not said.
    issuer: str
    error: str
    redirect_uri: str


class OidcClient:
    """Remembers the keys of providers for ten minutes."""

    def __init__(self, discovery: Discovery, clock: Clock) -> None:
        self._discovery = discovery
        self._clock = clock
        #: By address; the oldest first.
        self._keys: dict[str, Keys] = {}

    async def authorization_url(
        self, provider: OidcProvider, redirect_uri: str, state: str, secrets: SignOnSecrets
    ) -> str:
        """Where to send the browser. Raises ProviderAway."""
        metadata = await self._discovery.of(provider.settings.issuer)
        asked = {
            "response_type": "code",
            "client_id": provider.settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(dict.fromkeys(["openid", "email", "profile", *provider.settings.scopes])),
            "state": state,
            "nonce": secrets.nonce,
            "code_challenge": secrets.challenge,
            "code_challenge_method": "S256",
        }
        return str(URL(metadata.authorization_endpoint).update_query(asked))

    async def vouched(
        self, provider: OidcProvider, secret: str | None, returned: Returned, secrets: SignOnSecrets
    ) -> Vouched:
        """Whom the provider vouches for. Raises SignOnFailed, ProviderAway."""
        metadata = await self._discovery.of(provider.settings.issuer)
        # Before the code is shown to anybody: a code of another issuer must not reach this one (RFC 9207).
        if returned.issuer != provider.settings.issuer and (returned.issuer or metadata.names_itself):
            raise SignOnFailed("the answer comes from another issuer")
        if returned.error or not returned.code:
            raise SignOnFailed(f"it answers {_printable(returned.error) or 'without a code'}")
        token = await self._exchange(provider, secret, metadata, returned, secrets.verifier)
        claims = await self._verified(provider, metadata, token)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), secrets.nonce.encode()):
            raise SignOnFailed("the ID token has another nonce")
        return _vouched(provider, claims)

    async def _exchange(
        self, provider: OidcProvider, secret: str | None, metadata: Metadata, returned: Returned, verifier: str
    ) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": returned.code,
            "redirect_uri": returned.redirect_uri,
            "code_verifier": verifier,
        }
        headers = {"Accept": "application/json"}
        client_id = provider.settings.client_id
        if secret is not None and metadata.takes_basic:
            pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"  # RFC 6749, 2.3.1
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": client_id} if secret is None else {"client_id": client_id, "client_secret": secret}
        status, answer = await metadata.outbound.post_form(metadata.token_endpoint, form, headers)
        token = answer.get("id_token")
        if status != 200 or not isinstance(token, str):
            raise SignOnFailed(f"it does not take the code ({_printable(answer.get('error')) or 'no ID token'})")
        return token

    async def _verified(self, provider: OidcProvider, metadata: Metadata, token: str) -> dict[str, Any]:
        """The claims of an ID token that the provider signed for us, and that has not expired."""
        try:
            key = await self._key(metadata, _key_id(token))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS.get(str(key.key_type), ()),
                audience=provider.settings.client_id,
                issuer=provider.settings.issuer,
                # Times are judged below, by our own clock.
                options={
                    "require": ["iss", "sub", "aud", "exp", "iat"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.PyJWTError as error:
            raise SignOnFailed(f"the ID token is not valid ({error})") from error
        self._require_timely(claims)
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else provider.settings.client_id) != provider.settings.client_id:
            raise SignOnFailed("the ID token was issued to another client")
        return claims

    def _require_timely(self, claims: Mapping[str, Any]) -> None:
        now = self._clock.now_ms() / 1000
        expires, issued, begins = claims["exp"], claims["iat"], claims.get("nbf", 0)
        if not all(isinstance(moment, int | float) for moment in (expires, issued, begins)):
            raise SignOnFailed("the ID token has times that are none")
        if expires + _SKEW_SECONDS <= now or max(issued, begins) - _SKEW_SECONDS > now:
            raise SignOnFailed("the ID token is not valid at this time")

    async def _key(self, metadata: Metadata, key_id: str | None) -> jwt.PyJWK:
        """The key that a token names, or the only one there is. Raises SignOnFailed."""
        keys = self._keys.get(metadata.jwks_uri)
        age = self._clock.monotonic() - keys.read_at if keys else float("inf")
        key = _named(keys, key_id) if keys and age <= _KEYS_SECONDS else None
        if key is None and age > _KEYS_AGAIN_SECONDS:
            key = _named(await self._read_keys(metadata), key_id)
        if key is None:
            raise SignOnFailed("the ID token is signed with a key that the provider does not publish")
        return key

    async def _read_keys(self, metadata: Metadata) -> Keys:
        answer = await metadata.outbound.get(metadata.jwks_uri)
        said = answer.get("keys")
        found = _public_keys(said) if isinstance(said, list) and len(said) <= _MOST_KEYS else ()
        if not found:
            raise ProviderAway(metadata.jwks_uri, "its keys are none that can be used")
        keys = Keys(by_id=found, read_at=self._clock.monotonic())
        remember(self._keys, metadata.jwks_uri, keys, seconds=_KEYS_SECONDS, most=_MOST_KEYS_CACHED)
        return keys


def _public_keys(said: Sequence[object]) -> tuple[jwt.PyJWK, ...]:
    """Those that can be used; others are passed over, as RFC 7517, 5 has it."""
    found = []
    for key in said:
        with suppress(jwt.PyJWTError, TypeError, ValueError, AttributeError, KeyError):
            found.append(jwt.PyJWK(_public(key)))
    return tuple(found)


def _public(key: object) -> dict[str, str]:
    """A key without what is not known of public ones. Raises ValueError."""
    members = {name: key[name] for name in _PUBLIC_MEMBERS if name in key} if isinstance(key, Mapping) else {}
    if not all(isinstance(value, str) and len(value) <= _MOST_MEMBER_CHARACTERS for value in members.values()):
        raise ValueError("a key of other members than texts of some length")
    return members


def _key_id(token: str) -> str | None:
    """What a token's header names its key; the rest of the header is not held while the key is looked for.

    Raises PyJWTError, SignOnFailed.
    """
    key_id: str | None = jwt.get_unverified_header(token).get("kid")
    if key_id is not None and len(key_id) > _MOST_MEMBER_CHARACTERS:
        raise SignOnFailed("the ID token names its key at greater length than any key")
    return key_id


def _named(keys: Keys, key_id: str | None) -> jwt.PyJWK | None:
    """Without a name in the header: the only key there is (OpenID Connect Core, 10.1)."""
    usable = [key for key in keys.by_id if key.key_type in _ALGORITHMS and key.public_key_use in (None, "sig")]
    if key_id is not None:
        return next((key for key in usable if key.key_id == key_id), None)
    return usable[0] if len(usable) == 1 else None


def _vouched(provider: OidcProvider, claims: Mapping[str, Any]) -> Vouched:
    subject, email = claims["sub"], claims.get("email", "")
    if not 0 < len(subject) <= _MOST_SUBJECT_CHARACTERS or not subject.isprintable():
        raise SignOnFailed("its name for you is none that can be kept")
    groups, elsewhere = _values_of(claims, provider.admission.role_claim), claims.get("_claim_names")
    # OpenID Connect Core, 5.6.2: a claim of many values may be somewhere else, which is not asked.
    if len(groups) > _MOST_GROUPS or (isinstance(elsewhere, Mapping) and provider.admission.role_claim in elsewhere):
        raise TooManyGroups
    verified = claims.get("email_verified", provider.settings.trusts_email)
    believed = verified is True or verified == "true"  # which Apple says, and Keycloak where it is told so
    return Vouched(
        subject=subject,
        email=email if believed and isinstance(email, str) and not email_fault(email) else "",
        groups=groups,
    )


def _values_of(claims: Mapping[str, object], claim: str) -> Sequence[str]:
    """A claim's texts: a list of them, or one; `.` leads into objects, unless a claim has that very name."""
    found: object = claims.get(claim) if claim in claims else claims
    if found is claims:
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return [found]
    return [value for value in found if isinstance(value, str)] if isinstance(found, list | tuple) else []


def _printable(text: object) -> str:
    """What a provider says, made fit for a message."""
    return "".join(filter(str.isprintable, text))[:100] if isinstance(text, str) else ""
