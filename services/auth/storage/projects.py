"""Projects."""

from collections.abc import Sequence

from chassis.postgres import Connection
from services.auth.domain import PageRequest, Project, ProjectId, TenantId


class ProjectStorage:
    """Doors: `tenant_id`; `user_id` suffices for reading."""

    async def insert(self, connection: Connection, project: Project) -> None:
        await connection.execute(
            "INSERT INTO projects (id, tenant_id, name, created_at) VALUES (%s, %s, %s, %s)",
            (project.id, project.tenant_id, project.name, project.created_at),
        )

    async def count(self, connection: Connection, tenant_id: TenantId) -> int:
        cursor = await connection.execute("SELECT count(*) AS n FROM projects WHERE tenant_id = %s", (tenant_id,))
        [row] = await cursor.fetchall()
        return int(row["n"])

    async def get(self, connection: Connection, project_id: ProjectId) -> Project | None:
        cursor = await connection.execute(
            "SELECT id::text AS id, tenant_id::text AS tenant_id, name, created_at FROM projects WHERE id = %s",
            (project_id,),
        )
        row = await cursor.fetchone()
        return Project(**row) if row else None

    async def hold(self, connection: Connection, project_id: ProjectId) -> bool:
        """Nobody deletes it until this transaction ends, nor does anybody else hold it. False where it is gone.

        To be called before keys of it are locked: deleting it locks them after it.
        """
        cursor = await connection.execute("SELECT FROM projects WHERE id = %s FOR NO KEY UPDATE", (project_id,))
        return cursor.rowcount == 1

    async def hold_all(self, connection: Connection, tenant_id: TenantId) -> None:
        """As `hold`, all of a tenant's."""
        await connection.execute(
            "SELECT FROM projects WHERE tenant_id = %s ORDER BY projects.id FOR NO KEY UPDATE", (tenant_id,)
        )

    async def page(
        self, connection: Connection, tenant_ids: Sequence[TenantId], page: PageRequest
    ) -> Sequence[Project]:
        """One more than the page's size, where there are so many."""
        cursor = await connection.execute(
            "SELECT id::text AS id, tenant_id::text AS tenant_id, name, created_at FROM projects"
            " WHERE tenant_id = ANY(%s::uuid[]) AND id > %s ORDER BY projects.id LIMIT %s",
            (list(tenant_ids), page.after, page.size + 1),
        )
        return [Project(**row) for row in await cursor.fetchall()]

    async def rename(self, connection: Connection, project_id: ProjectId, name: str) -> Project | None:
        cursor = await connection.execute(
            "UPDATE projects SET name = %s WHERE id = %s"
            " RETURNING id::text AS id, tenant_id::text AS tenant_id, name, created_at",
            (name, project_id),
        )
        row = await cursor.fetchone()
        return Project(**row) if row else None

    async def delete(self, connection: Connection, project_id: ProjectId) -> None:
        """With its keys; that it was deleted stays known."""
        await connection.execute(
            "WITH deleted AS (DELETE FROM projects WHERE id = %s RETURNING id, tenant_id)"
            " INSERT INTO deleted_projects (id, tenant_id) SELECT id, tenant_id FROM deleted",
            (project_id,),
        )

    async def deleted_among(self, connection: Connection, project_ids: Sequence[ProjectId]) -> Sequence[ProjectId]:
        """Needs the role of the feed."""
        cursor = await connection.execute(
            "SELECT id::text AS id FROM deleted_projects WHERE id = ANY(%s::uuid[])", (list(project_ids),)
        )
        return [ProjectId(row["id"]) for row in await cursor.fetchall()]
