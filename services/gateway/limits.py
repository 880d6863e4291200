"""Which limits a call counts towards: by plan and caller, by address, by account."""

import unicodedata
from collections.abc import Iterable, Mapping

from aiohttp import web

from chassis.clock import Clock
from chassis.emails import email_key
from services.gateway import errors, rate_limits
from services.gateway.domain import (
    NO_OVERRIDES,
    PLANS,
    Bucket,
    Network,
    Overrides,
    Quota,
    Quotas,
    client_address,
    limited_address,
    quotas_of,
)
from services.gateway.rate_limits import Decision, Limiter, Refusals
from services.gateway.routes import ADDED_HEADERS, CALLER, IDEMPOTENCY_KEY, Handler
from services.gateway.shares import HOLDERS


class Limits:
    """Stages that let a call on while its quota lasts, and raise RATE_LIMIT_EXCEEDED after that."""

    def __init__(
        self,
        limiter: Limiter,
        clock: Clock,
        *,
        default_plan: str,
        auth_requests_per_minute: int,
        ingest_requests_per_minute: int | None,
        address_requests_per_15_minutes: int,
        trusted_proxies: Iterable[Network],
    ) -> None:
        self._limiter = limiter
        #: Of calls without a valid credential by address, and of those about what is not the caller's by caller.
        self._refusals = Refusals(clock)
        self._ingest_requests_per_minute = ingest_requests_per_minute
        self._default_plan = default_plan
        quotas = {plan: quotas_of(plan, ingest_requests_per_minute) for plan in PLANS}
        #: By plan; "" is the plan of what belongs to no tenant.
        self._quotas: Mapping[str, Quotas] = {**quotas, "": quotas[default_plan]}
        self._sign_in = Quota(name="sign-in", limit=auth_requests_per_minute, period_seconds=60)
        #: Of one address about one account, which anybody may name: half of what comes back to the account is left for
        #: others, its owner among them.
        self._sign_in_here = Quota(name="sign-in-here", limit=auth_requests_per_minute, period_seconds=120)
        self._address = Quota(name="address", limit=address_requests_per_15_minutes, period_seconds=900)
        self._trusted_proxies = tuple(trusted_proxies)

    async def reads(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Of the user or key."""
        await self._take_by_caller(request, self._of(request).reads)
        return await handler(request)

    async def writes(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Of the user or key."""
        await self._take_by_caller(request, self._of(request).writes)
        return await handler(request)

    async def provisioning(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Of the identity provider, as a user who reads or changes something."""
        quotas = self._of(request)
        await self._take_by_caller(request, quotas.reads if request.method == "GET" else quotas.writes)
        return await handler(request)

    async def expensive(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Of the user or key."""
        await self._take_by_caller(request, self._of(request).expensive)
        return await handler(request)

    async def ingestion(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Of the secret key; of the publishable key both from this address and from everywhere."""
        principal = request[CALLER].principal
        quotas = self._of(request)
        buckets = [Bucket(quota=quotas.ingestion, subject=self._caller_here(request))]
        if principal.kind == "publishable":
            buckets.append(Bucket(quota=quotas.ingestion_in_all, subject=principal.subject))
        await self._take(request, *buckets)
        return await handler(request)

    async def by_address(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Of the address, for calls without a credential."""
        address = self._address_of(request)
        _apply(request, await self._limiter.take([Bucket(quota=self._address, subject=address)]))
        HOLDERS.set((address,))
        return await handler(request)

    async def uncounted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Of nobody: what the answer holds, the address does."""
        HOLDERS.set((self._address_of(request),))
        return await handler(request)

    async def signing_in(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Of the address, for the routes below /auth/."""
        await self._take(request, self._attempt("address", self._address_of(request)))
        HOLDERS.set((self._address_of(request),))
        return await handler(request)

    async def charge_account(self, request: web.Request, email: str) -> None:
        """Counts an attempt to sign in to an account, or to make it, whether it exists or not."""
        await self._take_named(request, "account", email_key(email))

    async def charge_reset(self, request: web.Request, email: str) -> None:
        """Counts a wish to reset an account's password: apart, for whom others' attempts to sign in keep out."""
        await self._take_named(request, "reset", email_key(email))

    async def charge_login(self, request: web.Request, provider_id: str, login: str) -> None:
        """Counts an attempt to sign in through a directory, which takes logins for the same whose capitals and spaces
        differ (RFC 4518)."""
        name = " ".join(unicodedata.normalize("NFKC", login).casefold().split())
        await self._take_named(request, "login", f"{provider_id} {name}")

    async def charge_caller(self, request: web.Request) -> None:
        """Counts an attempt to show the caller's own password, a code or a mailed token, as one to sign in."""
        await self._take(request, self._attempt("user", request[CALLER].principal.subject))

    async def _take_named(self, request: web.Request, kind: str, subject: str) -> None:
        """Of what anybody may name."""
        here = Bucket(quota=self._sign_in_here, subject=f"{kind} {self._address_of(request)} {subject}")
        await self._take(request, self._attempt(kind, subject), here)

    def _attempt(self, kind: str, subject: str) -> Bucket:
        """Told apart by kind: what somebody types as an e-mail address may look like somebody else's address or id."""
        return Bucket(quota=self._sign_in, subject=f"{kind} {subject}")

    async def charge_address(self, request: web.Request) -> None:
        """Counts a call without a valid credential."""
        address = self._address_of(request)
        await self._charge(request, address, Bucket(quota=self._address, subject=address))

    def admit(self, request: web.Request, *, known: bool) -> None:
        """Before auth may be asked about a credential: on behalf of the address. Where it is not known to be good, the
        address may be guessing: raises RATE_LIMIT_EXCEEDED where a call from there was refused, and the wait is not
        over."""
        address = self._address_of(request)
        if not known and (refusal := self._refusals.of(address)):
            _apply(request, refusal)
        HOLDERS.set((address,))

    def admit_seeking(self, request: web.Request) -> None:
        """Before auth is asked about a project that may not be the caller's. Raises RATE_LIMIT_EXCEEDED where
        `charge_refused` did, and the wait is not over."""
        if refusal := self._refusals.of(_seeking(request)):
            _apply(request, refusal)

    async def charge_refused(self, request: web.Request) -> None:
        """Counts a call that its caller may not make as one that reads, whatever it is. A key has as many of these
        apart: pages and programs that use it wrongly use up nothing of what it may."""
        here = self._caller_here(request)
        subject = here if request[CALLER].principal.kind == "user" else f"refused {here}"
        await self._charge(request, _seeking(request), Bucket(quota=self._of(request).reads, subject=subject))

    async def _charge(self, request: web.Request, subject: str, bucket: Bucket) -> None:
        """Counts a call, and remembers the refusal of who has none left."""
        decision = await self._limiter.take([bucket])
        if not decision.allowed:
            self._refusals.remember(subject, decision)
        _apply(request, decision)

    async def _take_by_caller(self, request: web.Request, quota: Quota) -> None:
        principal = request[CALLER].principal
        buckets = [Bucket(quota=quota, subject=principal.subject)]
        if request.method == "POST" and IDEMPOTENCY_KEY in request.headers:
            # What is kept takes memory that all tenants share.
            buckets.append(Bucket(quota=self._of(request).keyed, subject=principal.tenant_id or principal.subject))
        await self._take(request, *buckets)

    async def _take(self, request: web.Request, *buckets: Bucket) -> None:
        _apply(request, await self._limiter.take(buckets))

    def of_tenant(self, plan: str, overrides: Overrides) -> Quotas:
        """What each user and key of a tenant may do; plan "": that of what belongs to no tenant."""
        if overrides is NO_OVERRIDES:
            return self._quotas[plan]
        return quotas_of(plan or self._default_plan, self._ingest_requests_per_minute, overrides)

    def _of(self, request: web.Request) -> Quotas:
        verdict = request[CALLER]
        return self.of_tenant(verdict.plan, verdict.overrides)

    def address_of(self, request: web.Request) -> str:
        """Where the request comes from, as far as that can be believed."""
        peer = request.remote or ""
        if self._trusted_proxies:
            forwarded_for = request.headers.getall("X-Forwarded-For", ())
            peer = client_address(peer, forwarded_for, self._trusted_proxies)
        return peer

    def _caller_here(self, request: web.Request) -> str:
        """Who calls; where it is a publishable key, which anybody may have, together with the address."""
        principal = request[CALLER].principal
        if principal.kind != "publishable":
            return principal.subject
        return f"{principal.subject} {self._address_of(request)}"

    def _address_of(self, request: web.Request) -> str:
        return limited_address(self.address_of(request))


def _seeking(request: web.Request) -> str:
    """Told apart from addresses."""
    return f"user {request[CALLER].principal.subject}"


def _apply(request: web.Request, decision: Decision) -> None:
    """Tells the client how it stands. Raises RATE_LIMIT_EXCEEDED where the call may not go on."""
    request[ADDED_HEADERS].update(rate_limits.headers(decision))
    if not decision.allowed:
        raise errors.rate_limit_exceeded(decision.refused_by.name, decision.retry_after_seconds)
