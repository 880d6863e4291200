"""How somebody ceases to be a member, whoever decides so: steps of a transaction in which the tenant's roles are locked
and its rows are shown."""

from collections.abc import Sequence
from datetime import datetime

from chassis.postgres import Connection
from services.auth.domain import Member, Role, SessionId, TenantId, UserId
from services.auth.errors import LastOwner
from services.auth.storage.identity_providers import IdentityStorage
from services.auth.storage.members import MemberStorage


class Departures:
    """A tenant keeps an owner; an account that a provider of the tenant has made has no other tenant to go to."""

    def __init__(self, members: MemberStorage, identities: IdentityStorage) -> None:
        self._members = members
        self._identities = identities

    async def keep_an_owner(self, connection: Connection, tenant_id: TenantId, leaving: Member) -> None:
        """Who has consented and can sign in: not through a provider that is disabled. Raises LastOwner."""
        if leaving.role is not Role.OWNER or not leaving.consented:
            return
        if not await self._identities.owners_beside(connection, tenant_id, leaving.user.id):
            raise LastOwner

    async def end_membership(self, connection: Connection, tenant_id: TenantId, member: Member) -> None:
        """Raises LastOwner."""
        await self.keep_an_owner(connection, tenant_id, member)
        await self._members.delete(connection, tenant_id, member.user.id)

    async def keep_out(
        self, connection: Connection, tenant_id: TenantId, user_id: UserId, now: datetime
    ) -> Sequence[SessionId]:
        """No sign-on brings them back until they are readmitted; which sessions have ended. An account that no provider
        has made is left alone."""
        if not await self._identities.remove(connection, tenant_id, user_id, now):
            return []
        return await self._identities.end_sessions_of(connection, user_id, now)
