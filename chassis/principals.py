"""Who a call is made for: a short-lived principal, signed by auth, that every service verifies for itself.

A principal is a JWT (EdDSA, audience `pulsegate-services`) with the claims
`sub` (id of a user, a key or an identity provider), `kind` (user | publishable | secret | provisioner), `tid` (tenant
id), `pid` (project id), `sid` (session id), `scopes` (list) and `exp`. For people the scopes are those of their role in
that tenant. `tid` and `pid` are absent in a principal that is about a person's own account, `pid` in a
provider's.
"""

import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass

import jwt

from chassis.errors import Forbidden, Unauthenticated, Unavailable

ISSUER = "pulsegate-auth"
AUDIENCE = "pulsegate-services"

#: Verified principals kept by their bytes; past that the oldest goes.
_MOST_CACHED = 20_000

#: An unknown key id makes the verifier ask for the keys again, at most this often.
_REFETCH_SECONDS = 5.0

_RETRY_AFTER_SECONDS = 1.0

#: Answers auth's public keys as a JWK set.
KeySource = Callable[[], Awaitable[str]]


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A verified identity."""

    #: Id of a user, a key or an identity provider.
    subject: str
    #: "user", "publishable", "secret", or "provisioner" for an identity provider.
    kind: str
    scopes: frozenset[str]
    #: Unix seconds.
    expires_at: float
    #: Empty for a person's own account, like `project_id`.
    tenant_id: str = ""
    project_id: str = ""
    #: A person's session; empty for keys.
    session_id: str = ""

    def require(self, scope: str) -> None:
        """Raises Forbidden (a person) or INSUFFICIENT_SCOPE (a key) where the scope is missing."""
        if scope in self.scopes:
            return
        if self.kind == "user":
            raise Forbidden(f"Your role in this tenant does not include {scope}.")
        raise Forbidden(f"This key does not have the scope {scope}.", code="INSUFFICIENT_SCOPE")


CURRENT: ContextVar[Principal | None] = ContextVar("principal", default=None)


def current() -> Principal:
    """The verified principal of the call being served. Raises Unauthenticated where there is none."""
    principal = CURRENT.get()
    if principal is None:
        raise Unauthenticated("This call needs a principal.")
    return principal


def current_of_project() -> Principal:
    """The current principal, which must be about a project."""
    principal = current()
    if not principal.project_id:
        raise Unauthenticated("This call needs a principal of a project.")
    return principal


class PrincipalVerifier:
    """Verifies principals with auth's public keys, remembering each by its bytes until it expires."""

    def __init__(self, key_source: KeySource) -> None:
        self._key_source = key_source
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._verified: dict[str, Principal] = {}

    def known(self, token: str) -> Principal | None:
        """The principal where its signature was verified before and it has not expired; else `verify` decides."""
        known = self._verified.get(token)
        if known is not None and known.expires_at <= time.time():
            del self._verified[token]
            return None
        return known

    async def verify(self, token: str) -> Principal:
        """The principal. Raises Unauthenticated on anything but a valid signature by auth.

        Raises Unavailable where a genuine one has expired. Gateways ask for the next one well before that: clocks
        differ, or the call took very long, and neither speaks against the credential that it was made for.
        """
        if (known := self.known(token)) is not None:
            return known
        principal = self._decode(token, await self._key_of(token))
        if principal.expires_at <= time.time():
            message = "Who calls cannot be verified now: the clocks of Pulsegate's services differ."
            raise Unavailable.waiting_for("clock", message, _RETRY_AFTER_SECONDS)
        if len(self._verified) >= _MOST_CACHED:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = principal
        return principal

    async def _key_of(self, token: str) -> jwt.PyJWK:
        try:
            key_id = jwt.get_unverified_header(token).get("kid", "")
        except jwt.PyJWTError as error:
            raise Unauthenticated("The principal is not a JWT.") from error
        if key_id not in self._keys and time.monotonic() - self._fetched_at > _REFETCH_SECONDS:
            key_set = jwt.PyJWKSet.from_json(await self._key_source())
            self._keys = {key.key_id: key for key in key_set.keys if key.key_id}
            self._fetched_at = time.monotonic()
        if key_id not in self._keys:
            raise Unauthenticated("The principal is signed by an unknown key.")
        return self._keys[key_id]

    def _decode(self, token: str, key: jwt.PyJWK) -> Principal:
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                issuer=ISSUER,
                # Whether it has expired matters once all else is right.
                options={"require": ["exp", "sub", "iss", "aud"], "verify_exp": False},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated("The principal is not valid.") from error
        return Principal(
            subject=claims["sub"],
            kind=claims["kind"],
            scopes=frozenset(claims["scopes"]),
            expires_at=claims["exp"],
            tenant_id=claims.get("tid", ""),
            project_id=claims.get("pid", ""),
            session_id=claims.get("sid", ""),
        )
