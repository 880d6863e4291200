"""Whom an identity provider has brought, and who was removed or deactivated: an admin sees them, and lets them in."""

from chassis.audit import Party
from chassis.ids import is_uuid
from chassis.postgres import Database
from chassis.principals import Principal
from services.auth.domain import Page, PageRequest, Role, TenantId, UserId
from services.auth.identity_providers import RemovedMember
from services.auth.operations.access import Access, no_such, require_person
from services.auth.operations.audit import AuditTrail, Change
from services.auth.storage.identity_providers import IdentityStorage
from services.auth.storage.members import MemberStorage


class RemovedMembers:
    """For admins. Who signs in with a password of ours is none of them: nothing brings such a member back by itself."""

    def __init__(
        self,
        database: Database,
        access: Access,
        members: MemberStorage,
        identities: IdentityStorage,
        trail: AuditTrail,
    ) -> None:
        self._database = database
        self._access = access
        self._members = members
        self._identities = identities
        self._trail = trail

    async def page(self, principal: Principal, tenant_id: TenantId, page: PageRequest) -> Page[RemovedMember]:
        """By user id. Raises NotFound, Forbidden."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            await self._access.to_tenant(connection, principal, tenant_id, Role.ADMIN)
            found = await self._identities.removed(connection, tenant_id, page)
        return page.cut(found, lambda removed: removed.user.id)

    async def readmit(self, principal: Principal, tenant_id: TenantId, user_id: UserId) -> None:
        """They are a member again once they sign in, as what their provider says then; also whom it has deactivated.

        Raises NotFound, Forbidden.
        """
        async with self._database.transaction(user_id=require_person(principal)) as connection:
            await self._members.lock_roles(connection, tenant_id)
            actor = await self._access.to_tenant(connection, principal, tenant_id, Role.ADMIN)
            if not is_uuid(user_id) or not await self._identities.readmit(connection, tenant_id, user_id):
                raise no_such("removed member")
            change = Change(action="member.readmitted", target=Party(kind="user", id=user_id))
            await self._trail.of_tenant(connection, actor, change)
