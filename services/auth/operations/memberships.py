"""How somebody becomes a member and ceases to be one, whoever decides so: steps of a transaction in which the tenant's
roles are locked and its rows are shown."""

from collections.abc import Sequence
from datetime import datetime

from chassis.audit import Party
from chassis.emails import email_key
from chassis.postgres import Connection
from services.auth.domain import Invitation, Member, Role, SessionId, TenantId, User, UserId
from services.auth.errors import AlreadyMember, LastOwner
from services.auth.operations.audit import Change
from services.auth.storage.identity_providers import IdentityStorage
from services.auth.storage.invitations import InvitationStorage
from services.auth.storage.members import MemberStorage


def change_of_invitation(action: str, invitation: Invitation) -> Change:
    """What the audit log is told: not the address."""
    target = Party(kind="invitation", id=invitation.id)
    return Change(action=action, target=target, details={"role": invitation.role.word})


class Memberships:
    """A tenant keeps an owner; an account that a provider of the tenant has made has no other tenant to go to. What was
    offered to an address before its owner came in otherwise, or left, brings nobody in afterwards, nor higher up."""

    def __init__(self, members: MemberStorage, identities: IdentityStorage, invitations: InvitationStorage) -> None:
        self._members = members
        self._identities = identities
        self._invitations = invitations

    async def begin(
        self, connection: Connection, tenant_id: TenantId, user: User, role: Role, now: datetime, *, consented: bool
    ) -> Sequence[Change]:
        """What else there is to tell. `consented`: as in `Membership`. Raises AlreadyMember."""
        if not await self._members.insert(connection, tenant_id, user.id, role, now, consented=consented):
            raise AlreadyMember
        return await self.void_invitation(connection, tenant_id, user)

    async def keep_an_owner(self, connection: Connection, tenant_id: TenantId, leaving: Member) -> None:
        """Who has consented and can sign in: not through a provider that is disabled. Raises LastOwner."""
        if leaving.role is not Role.OWNER or not leaving.consented:
            return
        if not await self._identities.owners_beside(connection, tenant_id, leaving.user.id):
            raise LastOwner

    async def end(self, connection: Connection, tenant_id: TenantId, member: Member) -> Sequence[Change]:
        """What else there is to tell. Raises LastOwner."""
        await self.keep_an_owner(connection, tenant_id, member)
        await self._members.delete(connection, tenant_id, member.user.id)
        return await self.void_invitation(connection, tenant_id, member.user)

    async def void_invitation(self, connection: Connection, tenant_id: TenantId, user: User) -> Sequence[Change]:
        """To their address, whichever account would accept it; what there is to tell."""
        voided = await self._invitations.delete_to_address(connection, tenant_id, email_key(user.email))
        return [change_of_invitation("invitation.revoked", invitation) for invitation in voided]

    async def keep_out(
        self, connection: Connection, tenant_id: TenantId, user_id: UserId, now: datetime
    ) -> Sequence[SessionId]:
        """No sign-on brings them back until they are readmitted; which sessions have ended. An account that no provider
        has made is left alone."""
        if not await self._identities.remove(connection, tenant_id, user_id, now):
            return []
        return await self._identities.end_sessions_of(connection, user_id, now)
