"""Who asks, and whether they may: the first step of every operation on a tenant's things."""

from dataclasses import dataclass

from chassis.errors import Forbidden, NotFound
from chassis.ids import is_uuid
from chassis.postgres import Connection
from chassis.principals import Principal
from services.auth.domain import Project, ProjectId, Role, SessionId, TenantId, UserId
from services.auth.errors import SessionOver, TenantSuspended
from services.auth.storage.accounts import AccountStorage, Standing
from services.auth.storage.projects import ProjectStorage
from services.auth.storage.row_access import show_rows
from services.auth.storage.sessions import SessionStorage


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
    """Looks memberships and sessions up in the transaction that is to act: what is lost or has ended counts at once."""

    def __init__(self, accounts: AccountStorage, projects: ProjectStorage, sessions: SessionStorage) -> None:
        self._accounts = accounts
        self._projects = projects
        self._sessions = sessions

    async def require_session(self, connection: Connection, principal: Principal) -> None:
        """The one in which the person asks goes on: for what is their own, and after waiting for who may have ended it.
        Raises SessionOver."""
        if not await self._sessions.is_alive(connection, require_person(principal), _session(principal)):
            raise SessionOver

    async def to_tenant(
        self, connection: Connection, principal: Principal, tenant_id: TenantId, least: Role = Role.VIEWER
    ) -> Actor:
        """Shows the tenant's rows. Raises NotFound to strangers, SessionOver, Forbidden (role too low),
        TenantSuspended."""
        user_id, standing = require_person(principal), None
        if is_uuid(tenant_id):
            standing = await self._accounts.standing(connection, user_id, _session(principal), tenant_id)
        if standing is None:
            raise no_such("tenant")
        return await self._admit(connection, user_id, standing, least)

    async def to_project(
        self, connection: Connection, principal: Principal, project_id: ProjectId, least: Role = Role.VIEWER
    ) -> Actor:
        """Shows the rows of the project's tenant. Raises like `to_tenant`."""
        user_id, standing = require_person(principal), None
        if is_uuid(project_id):
            standing = await self._accounts.standing_in_project(connection, user_id, _session(principal), project_id)
        if standing is None:
            raise no_such("project")
        return await self._admit(connection, user_id, standing, least)

    async def project(self, connection: Connection, project_id: ProjectId) -> Project:
        """A project of the tenant whose rows are shown. Raises NotFound."""
        project = await self._projects.get(connection, project_id)
        if project is None:
            raise no_such("project")
        return project

    async def held_project(self, connection: Connection, principal: Principal, project_id: ProjectId) -> Project:
        """The same for an admin, and nobody deletes it until this transaction ends, nor does anybody else hold it.

        Raises like `to_project`, which is asked after waiting for others: they may have taken the tenant back, or put
        the caller out.
        """
        if not await self._projects.hold(connection, project_id):
            raise no_such("project")
        await self.to_project(connection, principal, project_id, Role.ADMIN)
        return await self.project(connection, project_id)

    async def _admit(self, connection: Connection, user_id: UserId, standing: Standing, least: Role) -> Actor:
        if not standing.in_session:
            raise SessionOver
        if standing.role < least:
            raise Forbidden(f"This takes the role {least.word}; yours in this tenant is {standing.role.word}.")
        await show_rows(connection, "tenant_id", standing.tenant_id)
        if await self._accounts.is_suspended(connection, standing.tenant_id):
            raise TenantSuspended
        return Actor(user_id=user_id, tenant_id=standing.tenant_id, role=standing.role)


def _session(principal: Principal) -> SessionId:
    return SessionId(principal.session_id)
