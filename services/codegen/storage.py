"""The schema `codegen`: what was generated. Rows are seen by their own tenant only (row-level security)."""

from datetime import timedelta
from typing import Literal

from chassis.postgres import Connection
from services.codegen.domain import Artifact


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

    async def prune(self, connection: Connection, project_id: str, *, unused_for: timedelta, most: int) -> None:
        """Deletes the project's artifacts that nobody asked for in so long, or beyond `most`, the least used first.

        One that was asked for after it was made outlasts those made in the next two days, however many: of its use the
        last day may not be noted yet.
        """
        await connection.execute(
            """
            DELETE FROM artifacts
             WHERE project_id = %(project_id)s
               AND (used_at < now() - %(unused_for)s
                    OR input_hash IN (SELECT input_hash FROM artifacts WHERE project_id = %(project_id)s
                                       ORDER BY CASE WHEN used_at > created_at THEN used_at + interval '2 days'
                                                     ELSE used_at END DESC, created_at DESC
                                      OFFSET %(most)s))
            """,
            {"project_id": project_id, "unused_for": unused_for, "most": most},
        )
