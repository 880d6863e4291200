"""What OpenID providers say of themselves (OpenID Connect Discovery 1.0)."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

from chassis.clock import Clock
from services.auth.errors import OutOfReach, ProviderAway, UnsafeAddress
from services.auth.outbound import Outbound, Outbounds

_METADATA_SECONDS = 600.0
_SILENCE_SECONDS = 30.0
_MOST_CACHED = 500
_MOST_ENDPOINT_CHARACTERS = 2000


class Reading(Protocol):
    """What was read of a provider."""

    @property
    def read_at(self) -> float: ...

    @property
    def size(self) -> int:
        """What it counts for among what is remembered."""


_Reading = TypeVar("_Reading", bound=Reading)


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What discovery says of a provider: no more of it than is used."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    #: Whether a client may authenticate by HTTP's Basic scheme.
    takes_basic: bool
    #: RFC 9207.
    names_itself: bool
    #: By which its endpoints are asked: those of a public issuer never in private networks.
    outbound: Outbound
    read_at: float

    size = 1


@dataclass(frozen=True, kw_only=True)
class _Silence:
    """An issuer that did not say anything that can be used."""

    url: str
    cause: str
    read_at: float

    size = 1


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
            if silence is not None and now - silence.read_at <= _SILENCE_SECONDS:
                raise ProviderAway(silence.url, silence.cause)
            return await self._ask(issuer)

    async def _ask(self, issuer: str) -> Metadata:
        address = issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            metadata = await self._read(issuer, address)
        except ProviderAway as away:
            silence = _Silence(url=away.url, cause=away.cause, read_at=self._clock.monotonic())
            remember(self._silences, issuer, silence, seconds=_SILENCE_SECONDS, most=_MOST_CACHED)
            raise
        remember(self._metadata, issuer, metadata, seconds=_METADATA_SECONDS, most=_MOST_CACHED)
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
            takes_basic=isinstance(methods, list) and "client_secret_basic" in methods,
            names_itself=document.get("authorization_response_iss_parameter_supported") is True,
            outbound=outbound,
            read_at=self._clock.monotonic(),
        )


def remember(cache: dict[str, _Reading], name: str, value: _Reading, *, seconds: float, most: int) -> None:
    """Forgets what was read longer ago than that, and what was read first of more than `most` in all."""
    cache.pop(name, None)
    cache[name] = value
    oldest = value.read_at - seconds
    while next(iter(cache.values())).read_at < oldest or sum(each.size for each in cache.values()) > most:
        del cache[next(iter(cache))]


def _endpoint(document: Mapping[str, Any], name: str, address: str, outbound: Outbound) -> str:
    found = document.get(name)
    if not isinstance(found, str):
        raise ProviderAway(address, f"it does not say its {name}")
    # Before it is parsed: parsed addresses are remembered too, and others than these take more when they are encoded.
    if len(found) > _MOST_ENDPOINT_CHARACTERS or not found.isascii():
        raise ProviderAway(
            address, f"its {name} is longer than {_MOST_ENDPOINT_CHARACTERS} characters, or not in ASCII"
        )
    try:
        return outbound.require_allowed(found)
    except UnsafeAddress as unsafe:
        raise ProviderAway(address, f"its {name}: {unsafe.message}") from unsafe
