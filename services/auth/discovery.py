"""What OpenID providers say of themselves (OpenID Connect Discovery 1.0)."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from chassis.clock import Clock
from services.auth.errors import OutOfReach, ProviderAway, UnsafeAddress
from services.auth.outbound import Outbound, Outbounds

_METADATA_SECONDS = 600.0
_SILENCE_SECONDS = 30.0
_MOST_CACHED = 500


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What discovery says of a provider."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_auth_methods: tuple[str, ...]
    #: RFC 9207.
    names_itself: bool
    #: By which its endpoints are asked: those of a public issuer never in private networks.
    outbound: Outbound
    read_at: float


@dataclass(frozen=True, kw_only=True)
class _Silence:
    """An issuer that did not say anything that can be used."""

    url: str
    cause: str
    since: float


class Discovery:
    """Remembers what issuers say for ten minutes, and for half a minute that they say nothing."""

    def __init__(self, outbounds: Outbounds, clock: Clock) -> None:
        self._outbounds = outbounds
        self._clock = clock
        #: By issuer; the oldest first.
        self._metadata: dict[str, Metadata] = {}
        self._silences: dict[str, _Silence] = {}
        #: By issuer; of those that are asked at this moment.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def of(self, issuer: str) -> Metadata:
        """Asks an issuer once at a time, whoever waits for it. Raises ProviderAway."""
        turn = self._turns.setdefault(issuer, asyncio.Lock())
        async with turn:
            known, silence, now = self._metadata.get(issuer), self._silences.get(issuer), self._clock.monotonic()
            if known is not None and now - known.read_at <= _METADATA_SECONDS:
                return known
            if silence is not None and now - silence.since <= _SILENCE_SECONDS:
                raise ProviderAway(silence.url, silence.cause)
            return await self._ask(issuer)

    async def _ask(self, issuer: str) -> Metadata:
        address = issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            metadata = await self._read(issuer, address)
        except ProviderAway as away:
            silence = _Silence(url=away.url, cause=away.cause, since=self._clock.monotonic())
            remember(self._silences, issuer, silence, most=_MOST_CACHED)
            raise
        remember(self._metadata, issuer, metadata, most=_MOST_CACHED)
        return metadata

    async def _read(self, issuer: str, address: str) -> Metadata:
        outbound = self._outbounds.public
        try:
            document = await outbound.get(address)
        except OutOfReach:
            outbound = self._outbounds.inside
            document = await outbound.get(address)
        if document.get("issuer") != issuer:
            raise ProviderAway(address, "it says that it is another issuer")
        methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        return Metadata(
            authorization_endpoint=_endpoint(document, "authorization_endpoint", address, outbound),
            token_endpoint=_endpoint(document, "token_endpoint", address, outbound),
            jwks_uri=_endpoint(document, "jwks_uri", address, outbound),
            token_auth_methods=tuple(methods) if isinstance(methods, list) else (),
            names_itself=document.get("authorization_response_iss_parameter_supported") is True,
            outbound=outbound,
            read_at=self._clock.monotonic(),
        )


def remember(cache: dict[str, Any], name: str, value: object, *, most: int) -> None:
    """Forgets what was remembered first."""
    cache.pop(name, None)
    cache[name] = value
    while len(cache) > most:
        del cache[next(iter(cache))]


def _endpoint(document: Mapping[str, Any], name: str, address: str, outbound: Outbound) -> str:
    found = document.get(name)
    if not isinstance(found, str):
        raise ProviderAway(address, f"it does not say its {name}")
    try:
        return outbound.require_allowed(found)
    except UnsafeAddress as unsafe:
        raise ProviderAway(address, f"its {name}: {unsafe.message}") from unsafe
