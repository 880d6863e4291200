"""The tokens that auth gives out: access tokens, principals, refresh tokens and those that travel by mail."""

import base64
import hashlib
import math
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import jwt

from chassis import principals
from chassis.clock import Clock
from services.auth.domain import MailId, SessionId, UserId
from services.auth.errors import SessionOver, TokenExpired
from services.auth.master_key import MasterKey
from services.auth.signing_keys import KeyRing

#: Who access tokens are for; principals have an audience of their own, so that neither passes for the other.
ACCESS_AUDIENCE = "pulsegate"

_REFRESH_PREFIX = "rt_"
_REFRESH_BYTES = 32
_MAILED_PREFIX = "mt_"


@dataclass(frozen=True, kw_only=True)
class AccessClaims:
    """What a genuine, unexpired access token says."""

    user_id: UserId
    session_id: SessionId
    #: Unix seconds.
    expires_at: float


class Tokens:
    """Signs and reads JWTs (EdDSA, RFC 8037) with the ring's keys."""

    def __init__(self, ring: KeyRing, clock: Clock, *, access_seconds: int, principal_seconds: int) -> None:
        self._ring = ring
        self._clock = clock
        self._access_seconds = access_seconds
        self._principal_seconds = principal_seconds

    def access_token(self, user_id: UserId, session_id: SessionId, not_after: float | None = None) -> tuple[str, int]:
        """And the seconds until it expires: as its session does (`not_after`, Unix seconds), if that is earlier.

        Raises SigningKeysMissing until the keys have been read.
        """
        now = self._now()
        expires_at = _earlier(now + self._access_seconds, not_after)
        claims = {"aud": ACCESS_AUDIENCE, "sub": user_id, "sid": session_id, "iat": now, "exp": expires_at}
        return self._sign(claims), expires_at - now

    def read_access_token(self, token: str) -> AccessClaims:
        """Raises TokenExpired for a genuine token past its time, SessionOver for anything else that is not valid."""
        try:
            key = self._ring.public_key(str(jwt.get_unverified_header(token).get("kid", "")))
            if key is None:
                raise SessionOver
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=ACCESS_AUDIENCE,
                issuer=principals.ISSUER,
                # Expiry is judged below by our own clock; a replica's clock may be a little ahead of ours.
                options={"require": ["exp", "sub", "sid"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.PyJWTError as error:
            raise SessionOver from error
        if claims["exp"] <= self._now():
            raise TokenExpired
        return AccessClaims(
            user_id=UserId(claims["sub"]), session_id=SessionId(claims["sid"]), expires_at=claims["exp"]
        )

    def principal(
        self,
        subject: str,
        kind: str,
        scopes: Iterable[str],
        *,
        tenant_id: str = "",
        project_id: str = "",
        session_id: str = "",
        not_after: float | None = None,
    ) -> str:
        """A principal (`chassis.principals`). It ends with its credential (`not_after`, Unix seconds)."""
        claims: dict[str, object] = {
            "aud": principals.AUDIENCE,
            "sub": subject,
            "kind": kind,
            "scopes": sorted(scopes),
            "exp": _earlier(self._now() + self._principal_seconds, not_after),
        }
        optional = {"tid": tenant_id, "pid": project_id, "sid": session_id}
        return self._sign(claims | {name: value for name, value in optional.items() if value})

    def _sign(self, claims: dict[str, object]) -> str:
        key = self._ring.signer()
        return jwt.encode(
            {"iss": principals.ISSUER, **claims}, key.private_key, algorithm="EdDSA", headers={"kid": key.id}
        )

    def _now(self) -> int:
        return self._clock.now_ms() // 1000


class RefreshTokens:
    """Makes refresh tokens. Only their SHA-256 is kept; a successor is derived from its predecessor."""

    def __init__(self, master_key: MasterKey) -> None:
        self._master_key = master_key

    def first(self) -> str:
        """A session's first token: 256 random bits."""
        return _REFRESH_PREFIX + _base64url(secrets.token_bytes(_REFRESH_BYTES))

    def successor(self, spent: str) -> str:
        """The same for the same token, each time and in each replica."""
        return _REFRESH_PREFIX + _base64url(self._master_key.successor(spent.encode()))

    @staticmethod
    def digest(token: str) -> bytes:
        """By which a token is known at rest."""
        return hashlib.sha256(token.encode()).digest()


class MailedTokens:
    """Makes the tokens that mails carry.

    Each is derived from its mail's id, so that a mail that waits, or is sent again, needs no token at rest; what takes
    a token knows it by its SHA-256.
    """

    def __init__(self, master_key: MasterKey) -> None:
        self._master_key = master_key

    def of(self, mail_id: MailId) -> str:
        """The same for the same mail, each time and in each replica: 256 bits."""
        return _MAILED_PREFIX + _base64url(self._master_key.mailed(mail_id.encode()))

    @staticmethod
    def digest(token: str) -> bytes:
        """By which a token is known at rest."""
        return hashlib.sha256(token.encode()).digest()


def _earlier(expires_at: int, not_after: float | None) -> int:
    """Tokens count whole seconds, and the last one is not cut short: whoever is asked about the credential then still
    answers yes."""
    return expires_at if not_after is None else min(expires_at, math.ceil(not_after))


def _base64url(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")
