"""What somebody leaves in a tenant who has signed up with an address that is not theirs: steps of the transaction in
which whoever reads mail there gets the account."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from chassis.audit import Party
from chassis.postgres import Connection
from services.auth.domain import InvitationId, KeyId, Membership, Role, SessionId, TenantId, UserId
from services.auth.identity_providers import ProviderId
from services.auth.operations.access import Actor
from services.auth.operations.audit import AuditTrail, Change, told
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.feed import FeedStorage
from services.auth.storage.identity_providers import IdentityProviderStorage, IdentityStorage
from services.auth.storage.invitations import InvitationStorage
from services.auth.storage.keys import KeyStorage
from services.auth.storage.members import MemberStorage
from services.auth.storage.projects import ProjectStorage
from services.auth.storage.row_access import show_rows


@dataclass(frozen=True, kw_only=True)
class Reclaimed:
    """What was ended in one tenant: its other members, live keys, open invitations, and its identity providers."""

    tenant_id: TenantId
    members: Sequence[UserId]
    keys: Sequence[KeyId]
    invitations: Sequence[InvitationId]
    providers: Sequence[ProviderId]
    #: Of accounts that the providers have made.
    sessions: Sequence[SessionId]

    @property
    def changed_ids(self) -> Sequence[str]:
        return [*self.members, *self.keys, *self.providers, *self.sessions]

    @property
    def notice(self) -> str:
        """What the owner is mailed."""
        return (
            "What was made in your tenant before this address was verified need not be yours, and was ended: API keys"
            f" ({len(self.keys)} revoked), other members ({len(self.members)} removed), invitations"
            f" ({len(self.invitations)} revoked), identity providers ({len(self.providers)} disabled)."
        )

    @property
    def details(self) -> dict[str, object]:
        return {
            **told("members", self.members),
            **told("keys", self.keys),
            **told("invitations", self.invitations),
            **told("identityProviders", self.providers),
        }


class Reclaiming:
    """A tenant that an account has founded becomes its alone, unless another owner answers for it."""

    def __init__(
        self,
        accounts: AccountStorage,
        members: MemberStorage,
        projects: ProjectStorage,
        keys: KeyStorage,
        invitations: InvitationStorage,
        providers: IdentityProviderStorage,
        identities: IdentityStorage,
        feed: FeedStorage,
        trail: AuditTrail,
    ) -> None:
        self._accounts = accounts
        self._members = members
        self._projects = projects
        self._keys = keys
        self._invitations = invitations
        self._providers = providers
        self._identities = identities
        self._feed = feed
        self._trail = trail

    async def reclaim(self, connection: Connection, user_id: UserId, now: datetime) -> Sequence[Reclaimed]:
        """Ends what anybody else can use the user's own tenants with; the user's rows are shown. Where there was
        nothing to end, nothing is said of it."""
        reclaimed = [
            await self._end_all(connection, membership.tenant.id, user_id, now)
            for membership in await self._accounts.memberships(connection, user_id)
            if await self._is_own(connection, membership, user_id)
        ]
        return [one for one in reclaimed if one.changed_ids or one.invitations]

    async def tell(self, connection: Connection, user_id: UserId, reclaimed: Sequence[Reclaimed]) -> None:
        """After the account's own changes were told to these tenants: their chains are this transaction's by then."""
        for one in reclaimed:
            await show_rows(connection, "tenant_id", one.tenant_id)
            actor = Actor(user_id=user_id, tenant_id=one.tenant_id, role=Role.OWNER)
            target = Party(kind="tenant", id=one.tenant_id)
            await self._trail.of_tenant(
                connection, actor, Change(action="tenant.reclaimed", target=target, details=one.details)
            )
        await self._feed.announce(connection, [changed for one in reclaimed for changed in one.changed_ids])

    async def _is_own(self, connection: Connection, membership: Membership, user_id: UserId) -> bool:
        """Shows the tenant's rows, and locks its roles, where the user may be alone with it."""
        if membership.role is not Role.OWNER or not membership.consented:
            return False
        await self._members.lock_roles(connection, membership.tenant.id)
        await show_rows(connection, "tenant_id", membership.tenant.id)
        return await self._members.is_sole_founder(connection, membership.tenant.id, user_id)

    async def _end_all(self, connection: Connection, tenant_id: TenantId, user_id: UserId, now: datetime) -> Reclaimed:
        providers = await self._providers.disable_all(connection, tenant_id, now)
        sessions = [
            session
            for provider_id in providers
            for session in await self._identities.end_sessions(connection, provider_id, now)
        ]
        await self._accounts.lock_plan(connection, tenant_id)  # no project is made meanwhile, whose keys would stay
        await self._projects.hold_all(connection, tenant_id)
        return Reclaimed(
            tenant_id=tenant_id,
            members=await self._members.delete_others(connection, tenant_id, user_id),
            keys=await self._keys.revoke_all(connection, tenant_id, now),
            invitations=await self._invitations.delete_all(connection, tenant_id),
            providers=providers,
            sessions=sessions,
        )
