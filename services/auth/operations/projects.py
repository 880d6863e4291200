"""Projects of a person's tenants."""

from collections.abc import Sequence

from chassis.audit import Party
from chassis.clock import Clock, from_unix_ms
from chassis.errors import Invalid
from chassis.ids import is_uuid, uuid7
from chassis.postgres import Connection, Database
from chassis.principals import Principal
from services.auth.domain import (
    MOST_PROJECTS,
    Page,
    PageRequest,
    Project,
    ProjectId,
    Role,
    TenantId,
    UserId,
    require_name,
)
from services.auth.errors import TooManyProjects
from services.auth.operations.access import Access, no_such, require_person
from services.auth.operations.audit import AuditTrail, Change
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.feed import FEED_ROLE, FeedStorage
from services.auth.storage.keys import KeyStorage
from services.auth.storage.projects import ProjectStorage


class Projects:
    """Every member sees a tenant's projects; admins make, rename and delete them."""

    def __init__(
        self,
        database: Database,
        access: Access,
        accounts: AccountStorage,
        projects: ProjectStorage,
        keys: KeyStorage,
        feed: FeedStorage,
        trail: AuditTrail,
        clock: Clock,
    ) -> None:
        self._database = database
        self._access = access
        self._accounts = accounts
        self._projects = projects
        self._keys = keys
        self._feed = feed
        self._trail = trail
        self._clock = clock

    async def page(self, principal: Principal, tenant_id: TenantId, page: PageRequest) -> Page[Project]:
        """Of one tenant, or, where `tenant_id` is empty, of all of the caller's but suspended ones; from the oldest."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            if tenant_id:
                await self._access.to_tenant(connection, principal, tenant_id)
                tenant_ids = [tenant_id]
            else:
                memberships = await self._accounts.memberships(connection, user_id)
                tenant_ids = [one.tenant.id for one in memberships if not one.suspended]
            return page.cut(await self._projects.page(connection, tenant_ids, page), lambda project: project.id)

    async def create(self, principal: Principal, tenant_id: TenantId, name: str) -> Project:
        """`tenant_id` may be empty where the caller has exactly one tenant; one to which somebody has merely added them
        counts only where there is no other. Raises Invalid, NotFound, Forbidden, SessionOver, TooManyProjects."""
        user_id, name = require_person(principal), require_name(name)
        async with self._database.transaction(user_id=user_id) as connection:
            wanted = tenant_id or await self._only_tenant(connection, user_id)
            actor = await self._access.to_tenant(connection, principal, wanted, Role.ADMIN)
            await self._require_room(connection, principal, wanted)
            now = from_unix_ms(self._clock.now_ms())
            project = Project(id=ProjectId(str(uuid7())), tenant_id=wanted, name=name, created_at=now)
            await self._projects.insert(connection, project)
            await self._trail.of_tenant(connection, actor, project_change("project.created", project))
            return project

    async def get(self, principal: Principal, project_id: ProjectId) -> Project:
        """For a member of its tenant, and for a key of its own that may read definitions."""
        if principal.kind == "user":
            user_id = require_person(principal)
            async with self._database.transaction(user_id=user_id) as connection:
                await self._access.to_project(connection, principal, project_id)
                return await self._access.project(connection, project_id)
        if principal.project_id != project_id:
            raise no_such("project")
        principal.require("config:read")
        async with self._database.transaction(tenant_id=principal.tenant_id) as connection:
            return await self._access.project(connection, project_id)

    async def rename(self, principal: Principal, project_id: ProjectId, name: str) -> Project:
        """Raises Invalid, NotFound, Forbidden."""
        user_id, name = require_person(principal), require_name(name)
        async with self._database.transaction(user_id=user_id) as connection:
            actor = await self._access.to_project(connection, principal, project_id, Role.ADMIN)
            project = await self._projects.rename(connection, project_id, name)
            if project is None:
                raise no_such("project")
            await self._trail.of_tenant(connection, actor, project_change("project.renamed", project))
            return project

    async def delete(self, principal: Principal, project_id: ProjectId) -> None:
        """With its keys, which stop working: their verdicts depend on it. Raises NotFound, Forbidden."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            actor = await self._access.to_project(connection, principal, project_id, Role.ADMIN)
            project = await self._access.held_project(connection, principal, project_id)
            now = from_unix_ms(self._clock.now_ms())
            keys = await self._keys.count_alive_in(connection, project_id, now)
            await self._projects.delete(connection, project_id)
            change = project_change("project.deleted", project, keys=keys)
            await self._trail.of_tenant(connection, actor, change)
            await self._feed.announce(connection, [project_id])

    async def deleted_among(self, project_ids: Sequence[ProjectId]) -> Sequence[ProjectId]:
        """Those that somebody has deleted, for services that keep something of them."""
        async with self._database.transaction(role=FEED_ROLE) as connection:
            return await self._projects.deleted_among(connection, [one for one in project_ids if is_uuid(one)])

    async def _require_room(self, connection: Connection, principal: Principal, tenant_id: TenantId) -> None:
        """Alone among those who make projects of this tenant, or take it back; the caller's role is read again after
        waiting for them."""
        most = MOST_PROJECTS[await self._accounts.lock_plan(connection, tenant_id)]
        await self._access.to_tenant(connection, principal, tenant_id, Role.ADMIN)
        if await self._projects.count(connection, tenant_id) >= most:
            raise TooManyProjects(most)

    async def _only_tenant(self, connection: Connection, user_id: UserId) -> TenantId:
        memberships = await self._accounts.memberships(connection, user_id)
        chosen = [membership for membership in memberships if membership.consented] or memberships
        tenant_ids = [membership.tenant.id for membership in chosen]
        if len(tenant_ids) != 1:
            raise Invalid.fields({"tenantId": f"is required, since you belong to {len(tenant_ids)} tenants"})
        return tenant_ids[0]


def project_change(action: str, project: Project, **details: int) -> Change:
    """What the audit log is told of a project."""
    target = Party(kind="project", id=project.id, name=project.name)
    return Change(action=action, target=target, project_id=project.id, details=details)
