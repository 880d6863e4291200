"""Requests to addresses that a tenant has chosen: never into private networks, unless an operator allows it."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from threading import Lock
from typing import Any

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from chassis import key_exchange
from chassis.shares import Shares
from services.auth.conversations import ASKED_FOR
from services.auth.errors import OutOfReach, ProviderAway, TooManyLookups, UnsafeAddress

Network = IPv4Network | IPv6Network

_TIMEOUT = aiohttp.ClientTimeout(total=3.0)
#: No fewer than conversations: who has a place does not wait for a connection, or for a thread.
_MOST_CONNECTIONS = 64
#: Decoded, it takes up to thirty times as much memory.
_MOST_ANSWER_BYTES = 1 << 18
#: Of a connection, by the operating system, which has up to twice as many.
_READ_AHEAD_BYTES = 1 << 14
#: Kept while the rest of an answer is waited for, in up to five times as much memory.
_MOST_HEADERS = 64
_MOST_HEADER_BYTES = 1 << 12
#: For the request of this context.
_CONNECTED: ContextVar[list[asyncio.Transport]] = ContextVar("connected")
#: A name that nobody answers for takes a thread for half a minute, however long the caller waits.
_MOST_LOOKUPS = 64
#: What is not public though `is_global` says so: site-local addresses (RFC 3879), and those that carry an IPv4 address:
#: for a translator, NAT64 (RFC 6052, RFC 8215), SIIT (RFC 2765) and 6to4, or as IPv4-compatible ones (RFC 4291).
_NOT_PUBLIC = (
    IPv6Network("fec0::/10"),
    IPv6Network("64:ff9b::/96"),
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("::ffff:0:0:0/96"),
    IPv6Network("2002::/16"),
    IPv6Network("::/96"),
)


class Reach:
    """Which addresses may be asked."""

    def __init__(self, private_networks: Sequence[Network]) -> None:
        self._private_networks = private_networks

    def allows(self, address: str) -> bool:
        """Whether an IP address is public, or in a network that an operator has named."""
        ip = ip_address(address.partition("%")[0])
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        if any(ip in network for network in self._private_networks):
            return True
        return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)

    def require(self, url: str) -> URL:
        """An address of https; http only towards this machine, where an operator has named it. Raises UnsafeAddress."""
        return self._require(url, encrypted=("https",), plain="http")

    def require_directory(self, url: str, *, start_tls: bool) -> URL:
        """The same of an LDAP directory: ldaps, or ldap with StartTLS; ldap alone only towards this machine."""
        return self._require(url, encrypted=("ldaps", "ldap") if start_tls else ("ldaps",), plain="ldap")

    def _require(self, url: str, *, encrypted: Sequence[str], plain: str) -> URL:
        try:
            parsed = URL(url)
        except ValueError as error:
            raise UnsafeAddress(url, "it is none") from error
        literal = _literal(parsed.host or "")
        plain_here = parsed.scheme == plain and literal is not None and literal.is_loopback
        if not parsed.host or parsed.user is not None or not (parsed.scheme in encrypted or plain_here):
            raise UnsafeAddress(url, f"it must begin with {encrypted[0]}:// and carry no credentials")
        if literal is not None and not self.allows(str(literal)):
            raise UnsafeAddress(url, "it is in a private network (see PULSEGATE_SSO_PRIVATE_NETWORKS)")
        return parsed


class _Names:
    """Looks names up on threads of its own.

    A name that nobody answers for keeps its thread for longer than anybody waits for it, and tenants choose names: the
    threads of the event loop are for everything else.
    """

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        #: By tenant.
        self._shares = Shares(_MOST_LOOKUPS)
        self._counting = Lock()

    async def addresses(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        """Raises OSError, TooManyLookups."""
        tenant_id = ASKED_FOR.get()
        self._begin(tenant_id)
        lookup = self._threads.submit(
            socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        # Counted until the thread is done with it, also where the caller has given up.
        lookup.add_done_callback(lambda _: self._end(tenant_id))
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, proto, _, address in await asyncio.wrap_future(lookup)
        ]

    def _begin(self, tenant_id: str) -> None:
        """Raises TooManyLookups."""
        with self._counting:
            if not self._shares.take((tenant_id,)):
                raise TooManyLookups

    def _end(self, tenant_id: str) -> None:
        with self._counting:
            self._shares.give_back((tenant_id,))


class _GuardedResolver(AbstractResolver):
    """What a name stands for is looked at after it was resolved, and connected to as it was looked at."""

    def __init__(self, reach: Reach, names: _Names) -> None:
        self._reach = reach
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._names.addresses(host, port, family)
        allowed = [one for one in found if self._reach.allows(one["host"])]
        if not allowed:
            raise UnsafeAddress(host, "its name stands for a private address (see PULSEGATE_SSO_PRIVATE_NETWORKS)")
        return allowed

    async def close(self) -> None:
        """The names are looked up for others too."""


class Outbound:
    """Small JSON answers, without redirects, within seconds, and connections to directories."""

    def __init__(self, session: aiohttp.ClientSession, reach: Reach, resolver: AbstractResolver) -> None:
        self._session = session
        self._reach = reach
        self._resolver = resolver

    def require_allowed(self, url: str) -> str:
        """The same address. Raises UnsafeAddress."""
        return str(self._reach.require(url))

    def require_directory(self, url: str, *, start_tls: bool) -> URL:
        """As in `Reach`. Raises UnsafeAddress."""
        return self._reach.require_directory(url, start_tls=start_tls)

    async def connect(
        self, host: str, port: int, tls: ssl.SSLContext | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To a directory that is allowed, at the address that was looked at. Raises OSError, UnsafeAddress,
        TooManyLookups; waits for as long as its caller does."""
        address = host
        if _literal(host) is None:
            [found, *_] = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
            address = found["host"]
        return await asyncio.open_connection(address, port, ssl=tls, server_hostname=host if tls else None)

    async def get(self, url: str) -> dict[str, Any]:
        """Raises OutOfReach, ProviderAway, TooManyLookups."""
        status, answer = await self._ask("GET", url)
        if status != 200:
            raise ProviderAway(url, f"it answers {status}")
        return answer

    async def post_form(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """Status and answer. Raises OutOfReach, ProviderAway, TooManyLookups."""
        return await self._ask("POST", url, data=form, headers=headers)

    async def _ask(self, method: str, url: str, **sent: Any) -> tuple[int, dict[str, Any]]:
        try:
            parsed = self._reach.require(url)
            with _cut_off():
                async with self._session.request(method, parsed, allow_redirects=False, **sent) as response:
                    answer = json.loads(await _read(response))
        except UnsafeAddress as error:
            raise OutOfReach(url, error.reason) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ProviderAway(url, str(error) or "it takes too long") from error
        except (ValueError, RecursionError) as error:
            raise ProviderAway(url, "its answer is no JSON") from error
        if not isinstance(answer, dict):
            raise ProviderAway(url, "its answer is no JSON object")
        return response.status, answer


@dataclass(frozen=True, kw_only=True)
class Outbounds:
    """Two reaches: what is public leads nobody inside."""

    #: To public addresses alone.
    public: Outbound
    #: Into the private networks too that an operator has named.
    inside: Outbound


@asynccontextmanager
async def reaching(private_networks: Sequence[Network]) -> AsyncIterator[Outbounds]:
    """Both, while open."""
    threads = ThreadPoolExecutor(_MOST_LOOKUPS, thread_name_prefix="names")
    names = _Names(threads)
    try:
        async with _asking(Reach(()), names) as public, _asking(Reach(private_networks), names) as inside:
            yield Outbounds(public=public, inside=inside)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def _asking(reach: Reach, names: _Names) -> AsyncIterator[Outbound]:
    resolver = _GuardedResolver(reach, names)
    connector = _Connector(
        resolver=resolver,
        ssl=key_exchange.limited(ssl.create_default_context()),
        use_dns_cache=False,
        limit=_MOST_CONNECTIONS,
        # Whatever came after an answer would be kept until the connection is used again, however much that is.
        force_close=True,
        socket_factory=_socket,
    )
    # What one tenant's provider has us keep is sent to no other's.
    forgetful = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=_TIMEOUT,
        cookie_jar=forgetful,
        max_headers=_MOST_HEADERS,
        max_field_size=_MOST_HEADER_BYTES,
    ) as session:
        yield Outbound(session, reach, resolver)


def _socket(address: AddrInfoType) -> socket.socket:
    """One that reads little ahead: answers that nobody asked for are read with the one that was, and those take forty
    times as much memory."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _READ_AHEAD_BYTES)
    return made


class _Connector(aiohttp.TCPConnector):
    """Tells what it has connected."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - as it is called
    ) -> aiohttp.connector.Connection:
        connection = await super().connect(req, traces, timeout)
        if connection.transport is not None:
            _CONNECTED.get().append(connection.transport)
        return connection


@contextmanager
def _cut_off() -> Iterator[None]:
    """Connections that the block makes end with it. One with TLS that is closed in order is read on for half a minute,
    until the other side closes it too."""
    connected: list[asyncio.Transport] = []
    before = _CONNECTED.set(connected)
    try:
        yield
    finally:
        _CONNECTED.reset(before)
        for transport in connected:
            transport.abort()


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > _MOST_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError(f"it answers more than {_MOST_ANSWER_BYTES} bytes")
    return bytes(body)
