"""The schema `codegen`: what was generated. Rows are seen by their own tenant only (row-level security)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from chassis.postgres import Connection
from services.codegen.domain import Artifact, Retention

#: Sees of which projects of all tenants there are artifacts.
CLEANER_ROLE = "codegen_cleaner"


@dataclass(frozen=True, kw_only=True)
class ProjectOfArtifacts:
    """A project that artifacts were generated for."""

    tenant_id: str
    project_id: str
    #: Whether one of them was not asked for in so long.
    has_unused: bool


class ArtifactStorage:
    """Artifacts of a project by the hash of their input, and by that of their content."""

    async def find(
        self, connection: Connection, project_id: str, by: Literal["input_hash", "content_hash"], sha256: str
    ) -> Artifact | None:
        """Also notes that the artifact is used: once a day, and the first time that it is asked for by its content.

        `sha256` must be one.
        """
        values = {"project_id": project_id, "sha256": sha256, "is_pinned": by == "content_hash"}
        await connection.execute(
            f"""
            UPDATE artifacts SET used_at = now()
             WHERE project_id = %(project_id)s AND {by} = decode(%(sha256)s, 'hex')
               AND (used_at < now() - interval '1 day' OR %(is_pinned)s AND used_at = created_at)
            """,  # noqa: S608 - one of two constants # nosec B608
            values,
        )
        cursor = await connection.execute(
            f"""
            SELECT content, content_type, file_name, encode(content_hash, 'hex') AS sha256
              FROM artifacts
             WHERE project_id = %(project_id)s AND {by} = decode(%(sha256)s, 'hex')
             LIMIT 1
            """,  # noqa: S608 - one of two constants # nosec B608
            values,
            binary=True,  # as text the content would be twice as large
        )
        row = await cursor.fetchone()
        return Artifact(**row) if row else None

    async def add(
        self, connection: Connection, tenant_id: str, project_id: str, input_hash: str, artifact: Artifact
    ) -> None:
        """Two that generate the same at once add it once."""
        await connection.execute(
            """
            INSERT INTO artifacts (tenant_id, project_id, input_hash, content_hash, content, content_type, file_name)
            VALUES (%(tenant_id)s, %(project_id)s, decode(%(input_hash)s, 'hex'), decode(%(sha256)s, 'hex'),
                    %(content)s, %(content_type)s, %(file_name)s)
            ON CONFLICT (project_id, input_hash) DO NOTHING
            """,
            {
                "tenant_id": tenant_id,
                "project_id": project_id,
                "input_hash": input_hash,
                "sha256": artifact.sha256,
                "content": artifact.content,
                "content_type": artifact.content_type,
                "file_name": artifact.file_name,
            },
        )

    async def prune(
        self,
        connection: Connection,
        tenant_id: str,
        retention: Retention,
        *,
        project_id: str | None = None,
        input_hash: str | None = None,
    ) -> None:
        """Deletes the tenant's artifacts that nobody asked for in so long, and those of a project or of all its
        projects that are too many or too large together, the least used first.

        One that was asked for after it was made outlasts those made in the next two days, however many: of its use the
        last day may not be noted yet. The one that the project has of this input stays, however many outlast it: it was
        just added.
        """
        await connection.execute(
            """
            DELETE FROM artifacts
             WHERE (project_id, input_hash) IN (
                SELECT project_id, input_hash
                  FROM (SELECT project_id, input_hash, used_at, row_number() OVER of_project AS number,
                               sum(octet_length(content)) OVER of_project AS project_bytes,
                               sum(octet_length(content)) OVER of_tenant AS tenant_bytes
                          FROM (SELECT *, CASE WHEN used_at > created_at THEN used_at + interval '2 days'
                                               ELSE used_at END AS outlasts
                                  FROM artifacts WHERE tenant_id = %(tenant_id)s) AS those
                        WINDOW of_tenant AS (ORDER BY outlasts DESC, created_at DESC, project_id, input_hash
                                             ROWS UNBOUNDED PRECEDING),
                               of_project AS (PARTITION BY project_id
                                              ORDER BY outlasts DESC, created_at DESC, input_hash
                                              ROWS UNBOUNDED PRECEDING)) AS counted
                 WHERE used_at < now() - %(unused_for)s OR number > %(most_per_project)s
                    OR project_bytes > %(most_project_bytes)s OR tenant_bytes > %(most_tenant_bytes)s)
               AND (project_id, input_hash)
                   IS DISTINCT FROM (%(project_id)s::uuid, decode(%(input_hash)s, 'hex'))
            """,
            {
                "project_id": project_id,
                "input_hash": input_hash,
                "tenant_id": tenant_id,
                "unused_for": retention.unused_for,
                "most_per_project": retention.most_per_project,
                "most_project_bytes": retention.most_project_bytes,
                "most_tenant_bytes": retention.most_tenant_bytes,
            },
        )

    async def projects_after(
        self, connection: Connection, last_id: str, limit: int, unused_for: timedelta
    ) -> Sequence[ProjectOfArtifacts]:
        """Projects that have artifacts, with greater ids, in the order of ids. For the role `codegen_cleaner`."""
        cursor = await connection.execute(
            """
            SELECT tenant_id::text, project_id::text, min(used_at) < now() - %(unused_for)s AS has_unused
              FROM artifacts WHERE project_id > %(last_id)s
             GROUP BY artifacts.project_id, artifacts.tenant_id ORDER BY artifacts.project_id LIMIT %(limit)s
            """,
            {"last_id": last_id, "limit": limit, "unused_for": unused_for},
        )
        return [ProjectOfArtifacts(**row) for row in await cursor.fetchall()]

    async def delete_all(self, connection: Connection, project_id: str) -> int:
        """Deletes the project's artifacts, and says how many there were."""
        cursor = await connection.execute(
            "DELETE FROM artifacts WHERE project_id = %(project_id)s", {"project_id": project_id}
        )
        return cursor.rowcount
