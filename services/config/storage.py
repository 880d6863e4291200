"""Definitions in Postgres. Every method runs in a transaction that its caller opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from chassis.loop_turns import LoopTurns
from chassis.postgres import Connection
from services.config.domain import (
    Action,
    Actor,
    GaugeMerge,
    Label,
    Metric,
    MetricSpec,
    MetricType,
    ProjectSettings,
    Size,
)

#: Of a metric, named one by one: prepared statements outlive a migration, and fail where they answer more after it.
_STORED = (
    "id, tenant_id, project_id, name, type, unit, help, labels, buckets, objectives, gauge_merge, native_histogram,"
    " version, revision, created_at, updated_at, deleted_at, provisional"
)

_WITHOUT_LABELS = _STORED.replace("labels", "'[]'::jsonb AS labels")

#: Of one definition.
_VERSIONS_KEPT = 100

#: Deleted definitions that are forgotten in one transaction, during which all changes of all projects wait.
_MOST_FORGOTTEN = 500


@dataclass(frozen=True, kw_only=True)
class FeedPage:
    """Definitions in the order of their revisions."""

    metrics: Sequence[Metric]
    #: All changes up to here are in this page or before it.
    revision: int
    #: Whether nothing newer was there when it was read.
    reaches_head: bool
    #: What last changed up to here is not in this page.
    after_revision: int = 0


@dataclass(frozen=True, kw_only=True)
class FeedHead:
    """Where the feed stands."""

    revision: int
    #: Deletions up to this revision may have been forgotten: a watcher that saw less cannot be resumed.
    purged_revision: int
    #: Of all definitions.
    bytes: int


class DefinitionStorage:
    """What the operations need. Methods without an actor are for the transaction of the role `config_feed`."""

    async def next_revision(self, connection: Connection) -> int:
        """Takes the next revision. Until the transaction ends, every other change of any project waits here."""
        cursor = await connection.execute("UPDATE feed SET revision = revision + 1 RETURNING revision")
        return int((await _only(cursor))["revision"])

    async def recent_deletion(self, connection: Connection, actor: Actor, name: str) -> int | None:
        """The revision that deleted the project's last metric of that name; None where that is over a minute ago, which
        is longer than any transaction takes."""
        cursor = await connection.execute(
            """
            SELECT revision FROM metrics
             WHERE deleted_at > now() - interval '1 minute' AND project_id = %(project_id)s AND name = %(name)s
             ORDER BY revision DESC LIMIT 1
            """,
            {"project_id": actor.project_id, "name": name},
        )
        row = await cursor.fetchone()
        return row["revision"] if row else None

    async def size(self, connection: Connection, actor: Actor) -> Size:
        """Of the actor's project, of its tenant, and of all that there are."""
        cursor = await connection.execute(
            """
            SELECT project.definitions, project.bytes,
                   coalesce(tenant.bytes, 0) AS tenant_bytes, feed.bytes AS all_bytes,
                   coalesce(tenant.deleted_bytes, 0) AS tenant_deleted_bytes, feed.deleted_bytes AS all_deleted_bytes
              FROM feed
              LEFT JOIN tenant_bytes AS tenant ON tenant.tenant_id = %(tenant_id)s
             CROSS JOIN (SELECT count(*) AS definitions, coalesce(sum(bytes), 0) AS bytes
                           FROM metrics WHERE project_id = %(project_id)s AND deleted_at IS NULL) AS project
            """,
            {"project_id": actor.project_id, "tenant_id": actor.tenant_id},
        )
        return Size(**await _only(cursor))

    async def insert(
        self,
        connection: Connection,
        actor: Actor,
        metric_id: str,
        spec: MetricSpec,
        revision: int,
        *,
        provisional: bool = False,
    ) -> Metric | None:
        """The new definition; None where the project has one of this name."""
        cursor = await connection.execute(
            f"""
            INSERT INTO metrics (tenant_id, project_id, id, name, type, unit, help, labels, buckets, objectives,
                                 gauge_merge, native_histogram, provisional, version, revision)
            VALUES (%(tenant_id)s, %(project_id)s, %(id)s, %(name)s, %(type)s, %(unit)s, %(help)s, %(labels)s,
                    %(buckets)s, %(objectives)s, %(gauge_merge)s, %(native_histogram)s, %(provisional)s, 1,
                    %(revision)s)
            ON CONFLICT (project_id, name) WHERE deleted_at IS NULL DO NOTHING
            RETURNING {_STORED}
            """,  # noqa: S608 - a constant # nosec B608
            {
                "tenant_id": actor.tenant_id,
                "project_id": actor.project_id,
                "id": metric_id,
                "revision": revision,
                "provisional": provisional,
                **_columns(spec),
            },
        )
        row = await cursor.fetchone()
        return _metric(row) if row else None

    async def get(self, connection: Connection, actor: Actor, metric_id: str, *, for_update: bool) -> Metric | None:
        """The definition, unless it is deleted or another project's. `metric_id` must be a UUID."""
        statement = (
            f"SELECT {_STORED} FROM metrics"  # noqa: S608 - a constant # nosec B608
            " WHERE project_id = %(project_id)s AND id = %(id)s AND deleted_at IS NULL"
        )
        cursor = await connection.execute(
            f"{statement} FOR UPDATE" if for_update else statement,
            {"project_id": actor.project_id, "id": metric_id},
        )
        row = await cursor.fetchone()
        return _metric(row) if row else None

    async def list_after(
        self, connection: Connection, actor: Actor, last_id: str, *, most_metrics: int, most_bytes: int
    ) -> tuple[Sequence[Metric], bool]:
        """The project's definitions with greater ids, in the order of ids, which is that of creation, and whether none
        is left after them. The last one, or the only one, may be over `most_bytes`."""
        cursor = await connection.execute(
            f"""
            SELECT * FROM (
                SELECT {_STORED}, sum(bytes) OVER walk - bytes AS bytes_before, lead(id) OVER walk IS NULL AS is_last
                FROM metrics WHERE project_id = %(project_id)s AND id > %(last_id)s AND deleted_at IS NULL
                WINDOW walk AS (ORDER BY id)
                ORDER BY id LIMIT %(most_metrics)s
            ) AS walked WHERE bytes_before < %(most_bytes)s
            ORDER BY id
            """,  # noqa: S608 - a constant # nosec B608
            {
                "project_id": actor.project_id,
                "last_id": last_id,
                "most_metrics": most_metrics,
                "most_bytes": most_bytes,
            },
        )
        rows, metrics = await _read(cursor)
        return metrics, not rows or rows[-1]["is_last"]

    async def update(self, connection: Connection, metric_id: str, spec: MetricSpec, revision: int) -> Metric:
        """The definition after the change, one version up, and no more provisional."""
        cursor = await connection.execute(
            f"""
            UPDATE metrics
            SET unit = %(unit)s, help = %(help)s, labels = %(labels)s, version = version + 1, revision = %(revision)s,
                updated_at = now(), provisional = false
            WHERE id = %(id)s
            RETURNING {_STORED}
            """,  # noqa: S608 - a constant # nosec B608
            {"id": metric_id, "revision": revision, **_columns(spec)},
        )
        return _metric(await _only(cursor))

    async def made_from_data(self, connection: Connection, actor: Actor) -> int:
        """How many definitions of the project were made from data within the last minute."""
        cursor = await connection.execute(
            """
            SELECT count(*) AS n FROM metrics
             WHERE project_id = %(project_id)s AND provisional AND created_at > now() - interval '1 minute'
            """,
            {"project_id": actor.project_id},
        )
        return int((await _only(cursor))["n"])

    async def settings(self, connection: Connection, project_id: str) -> ProjectSettings:
        """The settings of a project. Also for the transaction of the role `config_feed`."""
        cursor = await connection.execute(
            "SELECT auto_definition FROM project_settings WHERE project_id = %(project_id)s",
            {"project_id": project_id},
        )
        row = await cursor.fetchone()
        return ProjectSettings(auto_definition=row["auto_definition"]) if row else ProjectSettings()

    async def set_settings(self, connection: Connection, actor: Actor, settings: ProjectSettings) -> None:
        """Keeps the settings of the actor's project."""
        await connection.execute(
            """
            INSERT INTO project_settings (tenant_id, project_id, auto_definition, changed_by)
            VALUES (%(tenant_id)s, %(project_id)s, %(auto_definition)s, %(changed_by)s)
            ON CONFLICT (project_id) DO UPDATE
               SET auto_definition = excluded.auto_definition, changed_by = excluded.changed_by, changed_at = now()
            """,
            {
                "tenant_id": actor.tenant_id,
                "project_id": actor.project_id,
                "auto_definition": settings.auto_definition,
                "changed_by": actor.subject,
            },
        )

    async def delete_settings(self, connection: Connection, actor: Actor) -> None:
        """Forgets the settings of the actor's project."""
        await connection.execute(
            "DELETE FROM project_settings WHERE project_id = %(project_id)s", {"project_id": actor.project_id}
        )

    async def projects_after(self, connection: Connection, last_id: str, limit: int) -> Sequence[tuple[str, str]]:
        """Projects that have definitions or settings, with greater ids, in the order of ids: tenant and project."""
        cursor = await connection.execute(
            """
            SELECT * FROM (
                (SELECT DISTINCT ON (project_id) tenant_id, project_id FROM metrics
                  WHERE deleted_at IS NULL AND project_id > %(last_id)s ORDER BY project_id LIMIT %(limit)s)
                UNION
                (SELECT tenant_id, project_id FROM project_settings
                  WHERE project_id > %(last_id)s ORDER BY project_id LIMIT %(limit)s)
            ) AS projects ORDER BY project_id LIMIT %(limit)s
            """,
            {"last_id": last_id, "limit": limit},
        )
        return [(str(row["tenant_id"]), str(row["project_id"])) for row in await cursor.fetchall()]

    async def mark_deleted(self, connection: Connection, metric_id: str, revision: int) -> Metric:
        """The definition, one version up, as a tombstone, which has none of what may be large: nobody asks for it."""
        # The statement's time, not the transaction's, which may have waited long for its revision.
        cursor = await connection.execute(
            f"""
            UPDATE metrics
            SET help = '', labels = '[]', buckets = '{{}}', objectives = '{{}}', version = version + 1,
                revision = %(revision)s, updated_at = statement_timestamp(), deleted_at = statement_timestamp()
            WHERE id = %(id)s
            RETURNING {_STORED}
            """,  # noqa: S608 - a constant # nosec B608
            {"id": metric_id, "revision": revision},
        )
        return _metric(await _only(cursor))

    async def record_version(self, connection: Connection, actor: Actor, metric: Metric, action: Action) -> None:
        """Keeps who made what of the definition, and when; of its versions the latest hundred stay."""
        await connection.execute(
            """
            INSERT INTO metric_versions (tenant_id, project_id, metric_id, version, action, spec, changed_by,
                                         changed_by_kind, changed_at)
            VALUES (%(tenant_id)s, %(project_id)s, %(metric_id)s, %(version)s, %(action)s, %(spec)s, %(changed_by)s,
                    %(changed_by_kind)s, %(changed_at)s)
            """,
            {
                "tenant_id": metric.tenant_id,
                "project_id": metric.project_id,
                "metric_id": metric.id,
                "version": metric.version,
                "action": action,
                "spec": Jsonb(_written_out(metric.spec)),
                "changed_by": actor.subject,
                "changed_by_kind": actor.kind,
                "changed_at": metric.updated_at,
            },
        )
        await connection.execute(
            "DELETE FROM metric_versions WHERE metric_id = %(metric_id)s AND version <= %(forgotten)s",
            {"metric_id": metric.id, "forgotten": metric.version - _VERSIONS_KEPT},
        )

    async def feed_head(self, connection: Connection) -> FeedHead:
        """Where the feed stands now."""
        row = await _only(await connection.execute("SELECT revision, purged_revision, bytes FROM feed"))
        return FeedHead(revision=row["revision"], purged_revision=row["purged_revision"], bytes=row["bytes"])

    async def feed_page(
        self, connection: Connection, after_revision: int, *, most_metrics: int, most_bytes: int
    ) -> FeedPage:
        """Definitions and tombstones of all projects that changed after the revision, in order. The last one, or the
        only one, may be over `most_bytes`."""
        # One statement, so one snapshot: no change can lie between the rows and the feed's revision.
        cursor = await connection.execute(
            f"""
            SELECT feed.revision AS head, page.*
            FROM feed LEFT JOIN (
                SELECT * FROM (
                    SELECT {_STORED}, sum(bytes) OVER walk - bytes AS bytes_before,
                           lead(revision) OVER walk IS NULL AS is_newest
                    FROM metrics WHERE revision > %(after)s
                    WINDOW walk AS (ORDER BY revision)
                    ORDER BY revision LIMIT %(most_metrics)s
                ) AS walked WHERE bytes_before < %(most_bytes)s
            ) AS page ON true
            ORDER BY page.revision
            """,  # noqa: S608 - a constant # nosec B608
            {"after": after_revision, "most_metrics": most_metrics, "most_bytes": most_bytes},
        )
        rows, metrics = await _read(cursor)
        reaches_head = not metrics or rows[-1]["is_newest"]
        revision = rows[0]["head"] if reaches_head else metrics[-1].revision
        return FeedPage(metrics=metrics, revision=revision, reaches_head=reaches_head)

    async def project_definitions(
        self, connection: Connection, project_id: str, *, with_labels: bool = True
    ) -> FeedPage:
        """All definitions of one project, without tombstones, and the revision of the same moment."""
        columns = _STORED if with_labels else _WITHOUT_LABELS
        cursor = await connection.execute(
            f"""
            SELECT feed.revision AS head, page.*
            FROM feed LEFT JOIN (
                SELECT {columns} FROM metrics WHERE project_id = %(project_id)s AND deleted_at IS NULL
            ) AS page ON true
            ORDER BY page.id
            """,  # noqa: S608 - constants # nosec B608
            {"project_id": project_id},
        )
        rows, metrics = await _read(cursor)
        return FeedPage(metrics=metrics, revision=rows[0]["head"], reaches_head=True)

    async def project_changes(self, connection: Connection, project_id: str, after_revision: int) -> FeedPage | None:
        """Definitions and tombstones of one project that changed after the revision, in order, and the revision of the
        same moment; None where the feed cannot be resumed after it."""
        cursor = await connection.execute(
            f"""
            SELECT feed.revision AS head, page.*
            FROM feed LEFT JOIN (
                SELECT {_STORED} FROM metrics WHERE project_id = %(project_id)s AND revision > %(after)s
            ) AS page ON true
            WHERE %(after)s > 0 AND %(after)s BETWEEN feed.purged_revision AND feed.revision
            ORDER BY page.revision
            """,  # noqa: S608 - a constant # nosec B608
            {"project_id": project_id, "after": after_revision},
        )
        rows, metrics = await _read(cursor)
        if not rows:
            return None
        return FeedPage(metrics=metrics, revision=rows[0]["head"], reaches_head=True, after_revision=after_revision)

    async def purge_tombstones(self, connection: Connection) -> int:
        """Forgets some of the definitions deleted more than eight days ago, with their history; answers how many, 0
        once there are none."""
        cursor = await connection.execute(
            """
            WITH purged AS (
                DELETE FROM metrics WHERE id IN (
                    SELECT id FROM metrics WHERE deleted_at < now() - interval '8 days'
                     ORDER BY deleted_at LIMIT %(most)s
                ) RETURNING revision
            ), newest AS (
                SELECT count(*) AS purged, max(revision) AS revision FROM purged
            ), noted AS (
                UPDATE feed SET purged_revision = greatest(purged_revision, newest.revision)
                FROM newest WHERE newest.purged > 0
            )
            SELECT purged FROM newest
            """,
            {"most": _MOST_FORGOTTEN},
        )
        return int((await _only(cursor))["purged"])


async def _only(cursor: Any) -> dict[str, Any]:
    """The row of a statement that always answers one."""
    row: dict[str, Any] | None = await cursor.fetchone()
    if row is None:
        raise LookupError("a statement answered no row")
    return row


async def _read(cursor: Any) -> tuple[Sequence[dict[str, Any]], Sequence[Metric]]:
    """Rows and metrics; in those of an outer join a row without an id stands for none.

    They may be megabytes, which are decoded row by row: in between whatever else waits has its turn.
    """
    rows: list[dict[str, Any]] = []
    metrics: list[Metric] = []
    turns = LoopTurns()
    async for row in cursor:
        rows.append(row)
        if row["id"] is not None:
            metrics.append(_metric(row))
        await turns.pause()
    return rows, metrics


def _columns(spec: MetricSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "type": spec.type,
        "unit": spec.unit,
        "help": spec.help,
        "labels": Jsonb([_written_out_label(label) for label in spec.labels]),
        "buckets": list(spec.buckets),
        "objectives": list(spec.objectives),
        "gauge_merge": spec.gauge_merge,
        "native_histogram": spec.native_histogram,
    }


def _written_out(spec: MetricSpec) -> dict[str, Any]:
    columns = _columns(spec)
    return {**columns, "labels": [_written_out_label(label) for label in spec.labels]}


def _written_out_label(label: Label) -> dict[str, Any]:
    return {
        "name": label.name,
        "required": label.required,
        "values": list(label.values),
        "pattern": label.pattern,
        "maxDistinct": label.max_distinct,
    }


def _metric(row: dict[str, Any]) -> Metric:
    return Metric(
        id=str(row["id"]),
        tenant_id=str(row["tenant_id"]),
        project_id=str(row["project_id"]),
        spec=MetricSpec(
            name=row["name"],
            type=MetricType(row["type"]),
            unit=row["unit"],
            help=row["help"],
            labels=tuple(_label(written) for written in row["labels"]),
            buckets=tuple(row["buckets"]),
            objectives=tuple(row["objectives"]),
            gauge_merge=GaugeMerge(row["gauge_merge"]) if row["gauge_merge"] else None,
            native_histogram=row["native_histogram"],
        ),
        version=row["version"],
        revision=row["revision"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        deleted_at=row["deleted_at"],
        provisional=row["provisional"],
    )


def _label(written: dict[str, Any]) -> Label:
    return Label(
        name=written["name"],
        required=written["required"],
        values=tuple(written["values"]),
        pattern=written["pattern"],
        max_distinct=written["maxDistinct"],
    )
