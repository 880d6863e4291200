"""What an identity provider itself says of the accounts that it has made: who they are, and who has left (RFC 7644)."""

from collections.abc import Sequence
from dataclasses import dataclass

from chassis.audit import Party
from chassis.clock import Clock, from_unix_ms
from chassis.errors import Forbidden
from chassis.ids import is_uuid
from chassis.postgres import Connection, Database
from chassis.principals import Principal
from services.auth.domain import SessionId, TenantId, User, UserId
from services.auth.errors import InvalidProvisioningToken, TenantSuspended
from services.auth.identity_providers import IdentityProvider, ProviderId, ProvisionedAccount, Sought
from services.auth.operations.access import no_such
from services.auth.operations.audit import AuditTrail, Change
from services.auth.operations.memberships import Memberships
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.feed import FeedStorage
from services.auth.storage.identity_providers import IdentityProviderStorage, IdentityStorage
from services.auth.storage.members import MemberStorage

#: The kind of a provider's principal: its subject is the provider.
PROVISIONER = "provisioner"


@dataclass(frozen=True, kw_only=True)
class Found:
    """Part of the accounts that were sought."""

    accounts: list[ProvisionedAccount]
    total: int


class Provisioning:
    """Of a provider's own accounts alone, less those whom an admin has removed: they are nobody to it any more."""

    def __init__(
        self,
        database: Database,
        accounts: AccountStorage,
        members: MemberStorage,
        providers: IdentityProviderStorage,
        identities: IdentityStorage,
        memberships: Memberships,
        feed: FeedStorage,
        trail: AuditTrail,
        clock: Clock,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._members = members
        self._providers = providers
        self._identities = identities
        self._memberships = memberships
        self._feed = feed
        self._trail = trail
        self._clock = clock

    async def find(self, principal: Principal, sought: Sought, *, skipped: int, most: int) -> Found:
        """By id; by an address: whom it most likely means comes first.

        Raises Forbidden, InvalidProvisioningToken, TenantSuspended.
        """
        async with self._database.transaction(tenant_id=_tenant_of(principal)) as connection:
            provider = await self._provider(connection, principal)
            total = await self._identities.count(connection, provider.id, sought)
            found = await self._identities.find_accounts(connection, provider.id, sought, skipped=skipped, most=most)
        return Found(accounts=list(found), total=total)

    async def get(self, principal: Principal, user_id: UserId) -> ProvisionedAccount:
        """Raises NotFound, and what `find` does."""
        async with self._database.transaction(tenant_id=_tenant_of(principal)) as connection:
            return await self._account(connection, await self._provider(connection, principal), user_id)

    async def set_active(self, principal: Principal, user_id: UserId, *, active: bool) -> ProvisionedAccount:
        """Who is not active is no member, and no sign-on changes that; who is again becomes one by signing in.

        Raises NotFound, LastOwner, and what `find` does.
        """
        async with self._database.transaction(tenant_id=_tenant_of(principal)) as connection:
            provider, account = await self._enter(connection, principal, user_id)
            if account.active and not active:
                await self._deactivate(connection, provider, account)
            elif active and not account.active:
                await self._identities.set_deactivated(connection, user_id, None)
                await self._tell(connection, provider, _change("member.reactivated", user_id))
            return await self._account(connection, provider, user_id)

    async def remove(self, principal: Principal, user_id: UserId) -> None:
        """As an admin does: an admin alone lets them in again. Raises NotFound, LastOwner, and what `find` does."""
        async with self._database.transaction(tenant_id=_tenant_of(principal)) as connection:
            provider, account = await self._enter(connection, principal, user_id)
            changes = await self._end_membership(connection, provider.tenant_id, account.user, "member.removed")
            now = from_unix_ms(self._clock.now_ms())
            ended = await self._memberships.keep_out(connection, provider.tenant_id, user_id, now)
            await self._tell(connection, provider, *changes)
            await self._feed.announce(connection, [user_id, *ended])

    async def _deactivate(
        self, connection: Connection, provider: IdentityProvider, account: ProvisionedAccount
    ) -> None:
        user_id, now = account.user.id, from_unix_ms(self._clock.now_ms())
        changes = await self._end_membership(connection, provider.tenant_id, account.user, "member.deactivated")
        await self._identities.set_deactivated(connection, user_id, now)
        ended: list[SessionId] = [*await self._identities.end_sessions_of(connection, user_id, now)]
        await self._tell(connection, provider, *changes)
        await self._feed.announce(connection, [user_id, *ended])

    async def _end_membership(
        self, connection: Connection, tenant_id: TenantId, user: User, action: str
    ) -> Sequence[Change]:
        """What there is to tell, also of whom had ceased to be a member before. Raises LastOwner."""
        member = await self._members.get(connection, tenant_id, user.id)
        if member is None:
            return [_change(action, user.id), *await self._memberships.void_invitation(connection, tenant_id, user)]
        voided = await self._memberships.end(connection, tenant_id, member)
        return [_change(action, user.id, before=member.role.word), *voided]

    async def _enter(
        self, connection: Connection, principal: Principal, user_id: UserId
    ) -> tuple[IdentityProvider, ProvisionedAccount]:
        """Alone among those who change this tenant's roles, or sign in through its providers."""
        await self._members.lock_roles(connection, _tenant_of(principal))
        provider = await self._provider(connection, principal)
        return provider, await self._account(connection, provider, user_id)

    async def _provider(self, connection: Connection, principal: Principal) -> IdentityProvider:
        """As it is now: a token that was revoked a moment ago is good for nothing."""
        provider = await self._providers.find(connection, ProviderId(principal.subject))
        if provider is None or provider.provisioning_since is None:
            raise InvalidProvisioningToken
        if await self._accounts.is_suspended(connection, provider.tenant_id):
            raise TenantSuspended
        return provider

    async def _account(self, connection: Connection, provider: IdentityProvider, user_id: UserId) -> ProvisionedAccount:
        sought = Sought(user_id=user_id)
        found = []
        if is_uuid(user_id):
            found = list(await self._identities.find_accounts(connection, provider.id, sought, skipped=0, most=1))
        if not found:
            raise no_such("user")
        return found[0]

    async def _tell(self, connection: Connection, provider: IdentityProvider, *changes: Change) -> None:
        by = Party(kind="identity_provider", id=provider.id, name=provider.name)
        await self._trail.by(connection, provider.tenant_id, by, *changes)


def _change(action: str, user_id: UserId, **details: str) -> Change:
    return Change(action=action, target=Party(kind="user", id=user_id), details=details)


def _tenant_of(principal: Principal) -> TenantId:
    """Raises Forbidden."""
    if principal.kind != PROVISIONER:
        raise Forbidden("Only an identity provider can do this, with its provisioning token.")
    return TenantId(principal.tenant_id)
