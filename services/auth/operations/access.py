"""Who asks, and whether they may: the first step of every operation on a tenant's things."""

from dataclasses import dataclass

from chassis.errors import Forbidden, NotFound
from chassis.ids import is_uuid
from chassis.postgres import Connection
from chassis.principals import Principal
from services.auth.domain import Project, ProjectId, Role, TenantId, UserId
from services.auth.errors import TenantSuspended
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.projects import ProjectStorage
from services.auth.storage.row_access import show_rows


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A member of a tenant who is about to do something there."""

    user_id: UserId
    tenant_id: TenantId
    role: Role


def require_person(principal: Principal) -> UserId:
    """The user's id. Raises INSUFFICIENT_SCOPE for a key: keys manage nothing."""
    if principal.kind != "user":
        raise Forbidden("An API key cannot do this. Sign in as a person.", code="INSUFFICIENT_SCOPE")
    return UserId(principal.subject)


def no_such(what: str) -> NotFound:
    """Absent, or another tenant's: never said which."""
    return NotFound(f"There is no such {what}.")


class Access:
    """Looks memberships up in the transaction that is to act, so that a lost role counts at once."""

    def __init__(self, accounts: AccountStorage, projects: ProjectStorage) -> None:
        self._accounts = accounts
        self._projects = projects

    async def to_tenant(
        self, connection: Connection, user_id: UserId, tenant_id: TenantId, least: Role = Role.VIEWER
    ) -> Actor:
        """Shows the tenant's rows. Raises NotFound to strangers, Forbidden (role too low), TenantSuspended."""
        role = await self._accounts.role(connection, user_id, tenant_id) if is_uuid(tenant_id) else None
        if role is None:
            raise no_such("tenant")
        return await self._admit(connection, Actor(user_id=user_id, tenant_id=tenant_id, role=role), least)

    async def to_project(
        self, connection: Connection, user_id: UserId, project_id: ProjectId, least: Role = Role.VIEWER
    ) -> Actor:
        """Shows the rows of the project's tenant. Raises like `to_tenant`."""
        found = await self._accounts.role_in_project(connection, user_id, project_id) if is_uuid(project_id) else None
        if found is None:
            raise no_such("project")
        tenant_id, role = found
        return await self._admit(connection, Actor(user_id=user_id, tenant_id=tenant_id, role=role), least)

    async def project(self, connection: Connection, project_id: ProjectId) -> Project:
        """A project of the tenant whose rows are shown. Raises NotFound."""
        project = await self._projects.get(connection, project_id)
        if project is None:
            raise no_such("project")
        return project

    async def held_project(self, connection: Connection, project_id: ProjectId) -> Project:
        """The same, and nobody deletes it until this transaction ends, nor does anybody else hold it."""
        if not await self._projects.hold(connection, project_id):
            raise no_such("project")
        return await self.project(connection, project_id)

    async def _admit(self, connection: Connection, actor: Actor, least: Role) -> Actor:
        if actor.role < least:
            raise Forbidden(f"This takes the role {least.word}; yours in this tenant is {actor.role.word}.")
        await show_rows(connection, "tenant_id", actor.tenant_id)
        if await self._accounts.is_suspended(connection, actor.tenant_id):
            raise TenantSuspended
        return actor
