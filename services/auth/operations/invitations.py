"""Invitations: somebody with an e-mail address is asked to become a member, with an account or before they have one."""

from datetime import datetime

from chassis.clock import Clock, from_unix_ms
from chassis.emails import email_key
from chassis.errors import Invalid
from chassis.ids import is_uuid, uuid7
from chassis.postgres import Connection, Database
from chassis.principals import Principal
from services.auth.domain import (
    INVITATION_LIFE,
    INVITATION_MAILS_PERIOD,
    MOST_INVITATION_MAILS_OF_TENANT,
    MOST_INVITATION_MAILS_TO_ADDRESS,
    MOST_OPEN_INVITATIONS,
    Invitation,
    InvitationId,
    Membership,
    Page,
    PageRequest,
    Role,
    TenantId,
    User,
    UserId,
    check_grant,
    email_fault,
)
from services.auth.errors import (
    AlreadyMember,
    InvalidMailedToken,
    InviterNotVerified,
    OtherAddress,
    TenantSuspended,
    TooManyInvitationMails,
    TooManyInvitations,
)
from services.auth.operations.access import Access, Actor, no_such, require_person
from services.auth.operations.audit import AuditTrail
from services.auth.operations.memberships import Memberships, change_of_invitation
from services.auth.outbox import Outbox
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.feed import FeedStorage
from services.auth.storage.invitations import InvitationStorage
from services.auth.storage.members import MemberStorage
from services.auth.storage.row_access import show_rows
from services.auth.tokens import MailedTokens


class Invitations:
    """Admins invite, list and revoke up to their own role; who is invited accepts with what was mailed."""

    def __init__(
        self,
        database: Database,
        access: Access,
        accounts: AccountStorage,
        members: MemberStorage,
        memberships: Memberships,
        invitations: InvitationStorage,
        outbox: Outbox,
        feed: FeedStorage,
        trail: AuditTrail,
        clock: Clock,
        *,
        only_verified: bool,
    ) -> None:
        self._database = database
        self._access = access
        self._accounts = accounts
        self._members = members
        self._memberships = memberships
        self._invitations = invitations
        self._outbox = outbox
        self._feed = feed
        self._trail = trail
        self._clock = clock
        #: Whether nobody invites whose own address is neither verified nor vouched for.
        self._only_verified = only_verified

    async def create(self, principal: Principal, tenant_id: TenantId, email: str, role: Role) -> Invitation:
        """Mails a token; an older invitation to the address is void. The same whether or not there is such an account.

        Raises Invalid, NotFound, Forbidden, InviterNotVerified, AlreadyMember, TooManyInvitations,
        TooManyInvitationMails.
        """
        email, now = email.strip(), self._now()
        if fault := email_fault(email):
            raise Invalid.fields({"email": fault})
        invitation = Invitation(
            id=InvitationId(str(uuid7())),
            tenant_id=tenant_id,
            email=email,
            role=role,
            created_at=now,
            expires_at=now + INVITATION_LIFE,
        )
        async with self._database.transaction(user_id=require_person(principal)) as connection:
            actor = await self._enter(connection, principal, tenant_id)
            older = await self._invitations.to_address(connection, tenant_id, email_key(email), now)
            check_grant(actor.role, current=older.role if older else None, wanted=role)
            if await self._members.has_address(connection, tenant_id, email_key(email)):
                raise AlreadyMember
            if older is None and await self._invitations.open(connection, tenant_id, now) >= MOST_OPEN_INVITATIONS:
                raise TooManyInvitations
            await self._require_room(connection, actor, email_key(email), now)
            await self._mail(connection, actor.user_id, invitation)
            await self._trail.of_tenant(connection, actor, change_of_invitation("invitation.created", invitation))
        return invitation

    async def page(self, principal: Principal, tenant_id: TenantId, page: PageRequest) -> Page[Invitation]:
        """Those that are open, from the oldest. Raises NotFound, Forbidden."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            await self._access.to_tenant(connection, principal, tenant_id, Role.ADMIN)
            found = await self._invitations.page(connection, tenant_id, page, self._now())
        return page.cut(found, lambda invitation: invitation.id)

    async def revoke(self, principal: Principal, tenant_id: TenantId, invitation_id: InvitationId) -> None:
        """Raises NotFound, Forbidden."""
        async with self._database.transaction(user_id=require_person(principal)) as connection:
            actor = await self._enter(connection, principal, tenant_id)
            found = None
            if is_uuid(invitation_id):
                found = await self._invitations.get(connection, tenant_id, invitation_id, self._now())
            if found is None:
                raise no_such("invitation")
            check_grant(actor.role, current=found.role, wanted=None)
            await self._invitations.delete(connection, found.id)
            await self._trail.of_tenant(connection, actor, change_of_invitation("invitation.revoked", found))

    async def accept(self, principal: Principal, token: str) -> Membership:
        """Makes the caller a member.

        Raises InvalidMailedToken, OtherAddress, SessionOver, AlreadyMember, TenantSuspended.
        """
        user_id, token_hash = require_person(principal), MailedTokens.digest(token)
        async with self._database.transaction(user_id=user_id, mailed_hash=token_hash.hex()) as connection:
            invitation = await self._invitations.find(connection, token_hash, self._now())
            if invitation is None:
                raise InvalidMailedToken
            user = await self._accounts.get(connection, user_id)
            if user is None or not await self._accounts.is_known_by(connection, user_id, email_key(invitation.email)):
                raise OtherAddress
            await self._join(connection, principal, user, invitation)
            memberships = await self._accounts.memberships(connection, user_id)
            await self._feed.announce(connection, [user_id])
        return next(one for one in memberships if one.tenant.id == invitation.tenant_id)

    async def _enter(self, connection: Connection, principal: Principal, tenant_id: TenantId) -> Actor:
        """Alone among those who change this tenant's roles and invitations."""
        await self._members.lock_roles(connection, tenant_id)
        return await self._access.to_tenant(connection, principal, tenant_id, Role.ADMIN)

    async def _require_room(self, connection: Connection, actor: Actor, key: str, now: datetime) -> None:
        """Nobody's mailbox is filled by strangers, not even with invitations that make each other void."""
        if self._only_verified and not await self._members.is_answered_for(connection, actor.tenant_id, actor.user_id):
            raise InviterNotVerified
        await self._invitations.lock_address(connection, key)
        await show_rows(connection, "email", key)
        since = now - INVITATION_MAILS_PERIOD
        to_address = await self._invitations.mailed_to_address(connection, key, since)
        of_tenant = await self._invitations.mailed_by_tenant(connection, actor.tenant_id, since)
        if to_address >= MOST_INVITATION_MAILS_TO_ADDRESS or of_tenant >= MOST_INVITATION_MAILS_OF_TENANT:
            raise TooManyInvitationMails

    async def _mail(self, connection: Connection, inviter_id: UserId, invitation: Invitation) -> None:
        inviter = await self._members.get(connection, invitation.tenant_id, inviter_id)
        memberships = await self._accounts.memberships(connection, inviter_id)
        details = {
            "tenant": next(one.tenant.name for one in memberships if one.tenant.id == invitation.tenant_id),
            "role": invitation.role.word,
            # Anybody may have signed up with an address, or have a provider of their own say one.
            "inviter": inviter.user.email if inviter and inviter.email_verified else "Somebody",
        }
        token_hash = await self._outbox.queue_invitation(connection, invitation.email, details, invitation.created_at)
        key = email_key(invitation.email)
        await self._invitations.replace(connection, invitation, key, token_hash)
        await self._invitations.note_mail(connection, invitation, key)

    async def _join(self, connection: Connection, principal: Principal, user: User, invitation: Invitation) -> None:
        await self._members.lock_roles(connection, invitation.tenant_id)
        await self._access.require_session(connection, principal)
        await show_rows(connection, "tenant_id", invitation.tenant_id)
        if await self._accounts.is_suspended(connection, invitation.tenant_id):
            raise TenantSuspended
        if not await self._invitations.delete(connection, invitation.id):  # used or revoked in between
            raise InvalidMailedToken
        tenant_id, role = invitation.tenant_id, invitation.role
        voided = await self._memberships.begin(connection, tenant_id, user, role, self._now(), consented=True)
        actor = Actor(user_id=user.id, tenant_id=tenant_id, role=role)
        accepted = change_of_invitation("invitation.accepted", invitation)
        await self._trail.of_tenant(connection, actor, accepted, *voided)

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())
