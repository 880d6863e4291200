"""Values and rules of the gateway: plans and their quotas, who calls, and where from."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from chassis.principals import Principal

Network = IPv4Network | IPv6Network

PLANS: Sequence[str] = ("free", "basic", "professional", "enterprise")

_DAY_SECONDS = 86_400
_HOUR_SECONDS = 3600
_MINUTE_SECONDS = 60
_API_CALLS_PER_HOUR = {"free": 100, "basic": 1_000, "professional": 5_000, "enterprise": 10_000}
_INGESTIONS_PER_MINUTE = {"free": 100, "basic": 1_000, "professional": 10_000, "enterprise": 100_000}
_EXPENSIVE_CALLS_PER_HOUR = {"free": 10, "basic": 100, "professional": 1_000, "enterprise": 10_000}

#: What Python takes for a verdict without its texts, with all that finds it again, and for a string and its place in a
#: set.
_BYTES_OF_A_VERDICT = 2000
_BYTES_BESIDE_A_TEXT = 100

_HOP = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def bare_origin(text: str) -> bool:
    """Whether the text is a scheme, a host and maybe a port, and nothing else."""
    return _ORIGIN.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True)
class Quota:
    """So many calls in so much time, all of which may come at once."""

    #: The policy's name in the `RateLimit` headers.
    name: str
    limit: int
    period_seconds: int


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A quota and whose calls count towards it."""

    quota: Quota
    #: Never sent or logged as it is: it may be an e-mail address.
    subject: str


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """What a plan allows one user, key or (key, address)."""

    #: Management calls that change something.
    writes: Quota
    #: Management calls that read, and queries.
    reads: Quota
    #: Generation, exports and bulk operations.
    expensive: Quota
    #: Calls of one tenant with an Idempotency-Key, whose answers are kept for a day.
    keyed: Quota
    #: Ingestion of one secret key, or of one publishable key from one address.
    ingestion: Quota
    #: Ingestion of one publishable key from all addresses together.
    ingestion_in_all: Quota


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What an operator has set for one tenant; 0: what the plan says."""

    writes_per_hour: int = 0
    reads_per_hour: int = 0
    expensive_per_hour: int = 0
    ingestion_per_minute: int = 0


NO_OVERRIDES = Overrides()


@lru_cache(maxsize=4096)
def quotas_of(plan: str, ingest_requests_per_minute: int | None = None, overrides: Overrides = NO_OVERRIDES) -> Quotas:
    """The quotas of a plan; the ingestion limit may be given instead, and an operator's overrides go before both."""
    calls = overrides.writes_per_hour or _API_CALLS_PER_HOUR[plan]
    reads = overrides.reads_per_hour or 10 * _API_CALLS_PER_HOUR[plan]
    expensive = overrides.expensive_per_hour or _EXPENSIVE_CALLS_PER_HOUR[plan]
    ingestions = overrides.ingestion_per_minute or ingest_requests_per_minute or _INGESTIONS_PER_MINUTE[plan]
    return Quotas(
        writes=Quota(name="api", limit=calls, period_seconds=_HOUR_SECONDS),
        reads=Quota(name="reads", limit=reads, period_seconds=_HOUR_SECONDS),
        expensive=Quota(name="expensive", limit=expensive, period_seconds=_HOUR_SECONDS),
        keyed=Quota(name="idempotency", limit=2 * calls, period_seconds=_DAY_SECONDS),
        ingestion=Quota(name="ingestion", limit=ingestions, period_seconds=_MINUTE_SECONDS),
        ingestion_in_all=Quota(name="ingestion-key", limit=10 * ingestions, period_seconds=_MINUTE_SECONDS),
    )


@dataclass(frozen=True, kw_only=True)
class Credential:
    """What a request showed: an API key, an access token, or an identity provider's provisioning token."""

    text: str
    #: "publishable" or "secret" for a key, "user" for an access token, "provisioner" for a provider's.
    kind: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Who a credential is, as auth said it."""

    principal: Principal
    #: The principal as auth signed it, for the services behind.
    token: str
    #: The feed's revision at which this was true.
    revision: int
    #: "" where the call belongs to no tenant.
    plan: str
    allowed_origins: frozenset[str]
    #: Of the tenant.
    overrides: Overrides = NO_OVERRIDES
    #: Tenants beside the principal's of which plan and overrides are.
    tenant_ids: frozenset[str] = frozenset()

    @property
    def ids(self) -> frozenset[str]:
        """What this verdict depends on: the feed names one of these when the verdict is void."""
        principal = self.principal
        parts = (principal.subject, principal.session_id, principal.project_id, principal.tenant_id)
        return self.tenant_ids.union(part for part in parts if part)

    @property
    def holder(self) -> str:
        """Whose it is where it is kept: the tenant's that the call is about, or the person's own."""
        return self.principal.tenant_id or self.principal.subject

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        texts = (self.token, *self.allowed_origins, *self.tenant_ids)
        return _BYTES_OF_A_VERDICT + sum(len(text) + _BYTES_BESIDE_A_TEXT for text in texts)

    def allows_origin(self, origin: str | None) -> bool:
        """Whether a page of this origin may use the credential. Only publishable keys are bound to origins."""
        if self.principal.kind != "publishable" or "*" in self.allowed_origins:
            return True
        return origin is not None and origin.lower() in self.allowed_origins


def client_address(peer: str, forwarded_for: Sequence[str], trusted_proxies: Iterable[Network]) -> str:
    """Who sent a request: the last address on its way that is not a trusted proxy.

    `forwarded_for` holds the X-Forwarded-For header's lines. What an untrusted sender wrote there is not believed.
    """
    address = _parse(peer)
    if address is None:
        return peer
    hops = [hop.strip() for line in forwarded_for for hop in line.split(",")]
    trusted = tuple(trusted_proxies)
    while hops and any(address in network for network in trusted):
        hop = _parse(_without_port(hops.pop()))
        if hop is None:
            break
        address = hop
    return str(address)


@lru_cache(maxsize=65_536)
def limited_address(address: str) -> str:
    """What shares one address's limits: an IPv4 address, or an IPv6 network of /64."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, 64), strict=False))
    return address if parsed is None else str(parsed)


def _without_port(hop: str) -> str:
    """Some proxies write the port too: `192.0.2.7:4711`, `[2001:db8::7]:4711`."""
    match = _HOP.fullmatch(hop)
    return hop if match is None else match[1] or match[2]


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
