"""Members of a tenant and their roles."""

from dataclasses import replace

from chassis.audit import Party
from chassis.clock import Clock, from_unix_ms
from chassis.emails import email_key
from chassis.errors import NotFound
from chassis.ids import is_uuid
from chassis.postgres import Connection, Database
from chassis.principals import Principal
from services.auth.domain import (
    MOST_UNASKED_MEMBERSHIPS,
    Member,
    Page,
    PageRequest,
    Role,
    TenantId,
    User,
    UserId,
    check_grant,
)
from services.auth.errors import AddedTooOften, InviterNotVerified
from services.auth.operations.access import Access, Actor, no_such, require_person
from services.auth.operations.audit import AuditTrail, Change
from services.auth.operations.memberships import Memberships
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.feed import FeedStorage
from services.auth.storage.invitations import InvitationStorage
from services.auth.storage.members import MemberStorage
from services.auth.storage.row_access import show_rows


class Members:
    """Every member sees the others; admins change what is not above them; everybody may leave but the last owner."""

    def __init__(
        self,
        database: Database,
        access: Access,
        accounts: AccountStorage,
        members: MemberStorage,
        memberships: Memberships,
        invitations: InvitationStorage,
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
        self._feed = feed
        self._trail = trail
        self._clock = clock
        #: Whether nobody is added whose address is not verified, since anybody may have signed up with it, and nobody
        #: adds others whose own is neither verified nor vouched for.
        self._only_verified = only_verified

    async def page(self, principal: Principal, tenant_id: TenantId, page: PageRequest) -> Page[Member]:
        """By user id. Raises NotFound to strangers."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            await self._access.to_tenant(connection, principal, tenant_id)
            return page.cut(await self._members.page(connection, tenant_id, page), lambda member: member.user.id)

    async def add(self, principal: Principal, tenant_id: TenantId, email: str, role: Role) -> Member:
        """A known user becomes a member; nobody has asked them, or else an open invitation to them is void.

        Raises NotFound, Forbidden, InviterNotVerified, AlreadyMember, AddedTooOften.
        """
        key, now = email_key(email), from_unix_ms(self._clock.now_ms())
        async with self._database.transaction(user_id=require_person(principal)) as connection:
            actor = await self._enter(connection, principal, tenant_id)
            invited = await self._invitations.to_address(connection, tenant_id, key, now)
            check_grant(actor.role, current=invited.role if invited else None, wanted=role)
            await self._require_answered_for(connection, actor)
            await show_rows(connection, "email", key)
            user = await self._known_user(connection, key)
            voided = await self._memberships.begin(connection, tenant_id, user, role, now, consented=False)
            await self._require_not_too_often(connection, user)
            await self._tell(connection, actor, "member.added", user.id, role=role.word)
            await self._trail.of_tenant(connection, actor, *voided)
            member = await self._member(connection, tenant_id, user.id)
            await self._feed.announce(connection, [user.id])
            return member

    async def _known_user(self, connection: Connection, key: str) -> User:
        user = await self._accounts.find_by_email(connection, key)
        if user is None:
            raise NotFound("Nobody with this e-mail address has an account yet.")
        if self._only_verified and not await self._accounts.email_verified(connection, user.id):
            raise NotFound("Nobody has verified this e-mail address yet. Invite them instead.")
        return user

    async def _require_not_too_often(self, connection: Connection, user: User) -> None:
        """All of a user's tenants are read whenever they sign in: strangers do not make them very many."""
        await show_rows(connection, "user_id", user.id)
        if await self._members.count_unasked(connection, user.id) > MOST_UNASKED_MEMBERSHIPS:
            raise AddedTooOften

    async def change_role(self, principal: Principal, tenant_id: TenantId, user_id: UserId, role: Role) -> Member:
        """Raises NotFound, Forbidden, InviterNotVerified (another owner), LastOwner."""
        async with self._database.transaction(user_id=require_person(principal)) as connection:
            actor = await self._enter(connection, principal, tenant_id)
            member = await self._member(connection, tenant_id, user_id)
            check_grant(actor.role, current=member.role, wanted=role)
            if role != member.role:
                if role is Role.OWNER:
                    await self._require_answered_for(connection, actor)
                await self._memberships.keep_an_owner(connection, tenant_id, member)
                await self._members.update(connection, tenant_id, user_id, role)
                await self._tell(
                    connection, actor, "member.role_changed", user_id, role=role.word, before=member.role.word
                )
                await self._feed.announce(connection, [user_id])
            return replace(member, role=role)

    async def remove(self, principal: Principal, tenant_id: TenantId, user_id: UserId) -> None:
        """Who is removed by somebody else is not brought back by their identity provider (`RemovedMembers`).

        Raises NotFound, Forbidden, LastOwner.
        """
        async with self._database.transaction(user_id=require_person(principal)) as connection:
            actor = await self._enter(connection, principal, tenant_id)
            member = await self._member(connection, tenant_id, user_id)
            leaves = user_id == actor.user_id
            if not leaves:
                check_grant(actor.role, current=member.role, wanted=None)
            voided = await self._memberships.end(connection, tenant_id, member)
            now = from_unix_ms(self._clock.now_ms())
            ended = [] if leaves else await self._memberships.keep_out(connection, tenant_id, user_id, now)
            await self._tell(connection, actor, "member.removed", user_id, before=member.role.word)
            await self._trail.of_tenant(connection, actor, *voided)
            await self._feed.announce(connection, [user_id, *ended])

    async def _tell(self, connection: Connection, actor: Actor, action: str, user_id: UserId, **details: str) -> None:
        change = Change(action=action, target=Party(kind="user", id=user_id), details=details)
        await self._trail.of_tenant(connection, actor, change)

    async def _enter(self, connection: Connection, principal: Principal, tenant_id: TenantId) -> Actor:
        """Alone among those who change this tenant's roles; the actor's own role is read after waiting for them."""
        await self._members.lock_roles(connection, tenant_id)
        return await self._access.to_tenant(connection, principal, tenant_id)

    async def _require_answered_for(self, connection: Connection, actor: Actor) -> None:
        """Of somebody else's address nobody makes further owners, who would stay when its owner takes it back."""
        if self._only_verified and not await self._members.is_answered_for(connection, actor.tenant_id, actor.user_id):
            raise InviterNotVerified

    async def _member(self, connection: Connection, tenant_id: TenantId, user_id: UserId) -> Member:
        member = await self._members.get(connection, tenant_id, user_id) if is_uuid(user_id) else None
        if member is None:
            raise no_such("member")
        return member
