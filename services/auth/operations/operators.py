"""What operators do above the tenants: plans, suspension, and nothing inside of one."""

from collections.abc import Collection
from dataclasses import replace

from chassis import logs
from chassis.audit import Party
from chassis.clock import Clock, from_unix_ms
from chassis.emails import email_key
from chassis.errors import Forbidden, Invalid
from chassis.ids import is_uuid
from chassis.postgres import Connection, Database
from chassis.principals import Principal
from services.auth.domain import PLANS, Limits, OperatedTenant, Page, PageRequest, TenantId, limits_fault
from services.auth.operations.access import Access, no_such, require_person
from services.auth.operations.audit import AuditTrail, Change
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.feed import FeedStorage
from services.auth.storage.row_access import show_rows
from services.auth.storage.tenants import OPERATOR_ROLE, TenantStorage

log = logs.get(__name__)


class Operators:
    """For accounts whose address is on the list and verified; the list is looked at in each call."""

    def __init__(
        self,
        database: Database,
        access: Access,
        accounts: AccountStorage,
        tenants: TenantStorage,
        feed: FeedStorage,
        trail: AuditTrail,
        clock: Clock,
        *,
        addresses: Collection[str],
    ) -> None:
        self._database = database
        self._access = access
        self._accounts = accounts
        self._tenants = tenants
        self._feed = feed
        self._trail = trail
        self._clock = clock
        self._keys = frozenset(map(email_key, addresses))

    async def page(self, principal: Principal, page: PageRequest) -> Page[OperatedTenant]:
        """Every tenant, from the oldest. Raises SessionOver, Forbidden."""
        await self._require_operator(principal)
        async with self._database.transaction(role=OPERATOR_ROLE) as connection:
            found = await self._tenants.page(connection, page)
        return page.cut(found, lambda operated: operated.tenant.id)

    async def update(
        self,
        principal: Principal,
        tenant_id: TenantId,
        plan: str | None,
        suspended: bool | None,
        limits: Limits | None,
    ) -> OperatedTenant:
        """Sets what is not None; everybody hears of it within a second.

        Raises SessionOver, Forbidden, Invalid, NotFound.
        """
        await self._require_operator(principal)
        if plan is not None and plan not in PLANS:
            raise Invalid.fields({"plan": f"must be one of {', '.join(PLANS)}"})
        if limits is not None and (fault := limits_fault(limits)):
            raise Invalid.fields({"limits": fault})
        async with self._database.transaction(role=OPERATOR_ROLE) as connection:
            known = await self._tenants.lock(connection, tenant_id) if is_uuid(tenant_id) else None
            if known is None:
                raise no_such("tenant")
            wanted = self._changed(known, plan, suspended, limits)
            if wanted != known:
                await self._tenants.update(connection, wanted)
                await self._tell(connection, principal, wanted)
                await self._feed.announce(connection, [tenant_id])
        log.info(
            "operator set a tenant",
            operator=principal.subject,
            tenant=tenant_id,
            plan=wanted.plan,
            suspended=wanted.suspended_at is not None,
        )
        return wanted

    async def _tell(self, connection: Connection, principal: Principal, wanted: OperatedTenant) -> None:
        """The tenant's own log says what an operator did to it."""
        tenant = wanted.tenant
        change = Change(
            action="tenant.operated",
            target=Party(kind="tenant", id=tenant.id, name=tenant.name),
            details={"plan": wanted.plan, "suspended": wanted.suspended_at is not None, **wanted.limits.told()},
        )
        await show_rows(connection, "tenant_id", tenant.id)
        await self._trail.by(connection, tenant.id, Party(kind="operator", id=principal.subject), change)

    def _changed(
        self, known: OperatedTenant, plan: str | None, suspended: bool | None, limits: Limits | None
    ) -> OperatedTenant:
        """A tenant that stays suspended keeps its moment."""
        suspended_at = known.suspended_at
        if suspended is not None and suspended != (suspended_at is not None):
            suspended_at = from_unix_ms(self._clock.now_ms()) if suspended else None
        return replace(known, plan=plan or known.plan, suspended_at=suspended_at, limits=limits or known.limits)

    async def _require_operator(self, principal: Principal) -> None:
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            user = await self._accounts.get(connection, user_id)
            verified = await self._accounts.email_verified(connection, user_id)
            # After that: the reset that verifies an address ends the sessions of whoever has signed up with it.
            await self._access.require_session(connection, principal)
        if user is None or not verified or email_key(user.email) not in self._keys:
            raise Forbidden("This takes an operator: an account whose verified address is in PULSEGATE_OPERATORS.")
