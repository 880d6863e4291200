"""The delivery ledger in Postgres: the tables `ledger` and `rejections`."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chassis.postgres import Connection
from services.ingest.domain import partition_of
from services.ingest.ledger import LedgerKey, LedgerLines

#: Lines are kept for so long.
_KEPT_MS = 92 * 24 * 3600 * 1000
#: The most lines that a question is answered with.
MOST_LINES = 5_000
#: Counts of a metric, code and hour of which the last rejections are found.
_MOST_LOOKED_AT = 100_000


async def add(connection: Connection, lines: LedgerLines) -> None:
    """Adds what a commit counted, in its transaction."""
    if lines.counts:
        await _add_counts(connection, lines)
    if lines.rejected:
        await _add_rejected(connection, lines)


async def _add_counts(connection: Connection, lines: LedgerLines) -> None:
    counts = lines.counts.values()
    await connection.execute(
        """
        INSERT INTO ledger (partition, tenant_id, project_id, metric, hour_ms, committed, duplicate, folded)
        SELECT * FROM unnest(%s::smallint[], %s::uuid[], %s::uuid[], %s::text[], %s::bigint[],
                             %s::bigint[], %s::bigint[], %s::bigint[])
        ON CONFLICT (partition, project_id, hour_ms, metric) DO UPDATE
           SET committed = ledger.committed + excluded.committed, duplicate = ledger.duplicate + excluded.duplicate,
               folded = ledger.folded + excluded.folded
        """,
        (
            *_columns(list(lines.counts)),
            [each.committed for each in counts],
            [each.duplicate for each in counts],
            [each.folded for each in counts],
        ),
    )


async def _add_rejected(connection: Connection, lines: LedgerLines) -> None:
    rejected = lines.rejected.values()
    await connection.execute(
        """
        INSERT INTO rejections (partition, tenant_id, project_id, metric, hour_ms, code, rejected, example, last_ms)
        SELECT * FROM unnest(%s::smallint[], %s::uuid[], %s::uuid[], %s::text[], %s::bigint[],
                             %s::text[], %s::bigint[], %s::text[], %s::bigint[])
        ON CONFLICT (partition, project_id, hour_ms, metric, code) DO UPDATE
           SET rejected = rejections.rejected + excluded.rejected, example = excluded.example,
               last_ms = excluded.last_ms
        """,
        (
            *_columns([key for key, _ in lines.rejected]),
            [code for _, code in lines.rejected],
            [each.count for each in rejected],
            [each.example for each in rejected],
            [each.last_ms for each in rejected],
        ),
    )


def _columns(keys: Sequence[LedgerKey]) -> tuple[list[object], ...]:
    return (
        [partition_of(key.project_id) for key in keys],
        [uuid.UUID(bytes=key.tenant_id) for key in keys],
        [uuid.UUID(bytes=key.project_id) for key in keys],
        [key.metric for key in keys],
        [key.hour_ms for key in keys],
    )


async def drop_old(connection: Connection, partitions: tuple[int, int], now_ms: int) -> None:
    """Deletes the lines of these partitions, first and last, that are older than three months."""
    since = (*partitions, now_ms - _KEPT_MS)
    await connection.execute("DELETE FROM ledger WHERE partition BETWEEN %s AND %s AND hour_ms < %s", since)
    await connection.execute("DELETE FROM rejections WHERE partition BETWEEN %s AND %s AND hour_ms < %s", since)


@dataclass(frozen=True, kw_only=True)
class LedgerLine:
    """What became of one metric in one hour."""

    metric: str
    hour_ms: int
    committed: int
    duplicate: int
    folded: int
    #: By code.
    rejected: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class LastRejection:
    """What was last rejected of a metric for one reason, and how many in all; or what was folded."""

    metric: str
    code: str
    count: int
    example: str
    last_ms: int


class Place(NamedTuple):
    """Of a line, in the order in which lines are told: the newest hours first, the metrics of an hour by name."""

    hour_ms: int
    metric: str


async def lines(
    connection: Connection, project_id: bytes, *, from_ms: int, to_ms: int, metric: str, after: Place | None = None
) -> list[LedgerLine]:
    """The project's lines of the hours from one moment to another, after a place; of one metric where it is named. One
    more than `MOST_LINES` says that there are more.

    The connection's tenant must be the project's.
    """
    cursor = await connection.execute(
        """
        SELECT metric, hour_ms, coalesce(committed, 0) AS committed, coalesce(duplicate, 0) AS duplicate,
               coalesce(folded, 0) AS folded, coalesce(codes, '{}') AS codes
          FROM (SELECT * FROM ledger WHERE partition = %(partition)s AND project_id = %(project)s
                   AND hour_ms >= %(from)s AND hour_ms < %(to)s) AS counted
          FULL JOIN (SELECT hour_ms, metric, jsonb_object_agg(code, rejected) AS codes FROM rejections
                      WHERE partition = %(partition)s AND project_id = %(project)s
                        AND hour_ms >= %(from)s AND hour_ms < %(to)s
                      GROUP BY hour_ms, metric) AS refused USING (hour_ms, metric)
         WHERE (%(metric)s = '' OR metric = %(metric)s)
           AND (NOT %(goes_on)s OR hour_ms < %(last_hour)s OR hour_ms = %(last_hour)s AND metric > %(last_metric)s)
         ORDER BY hour_ms DESC, metric LIMIT %(most)s
        """,
        {
            "partition": partition_of(project_id),
            "project": uuid.UUID(bytes=project_id),
            "from": from_ms,
            "to": to_ms,
            "metric": metric,
            "most": MOST_LINES + 1,
            "goes_on": after is not None,
            "last_hour": after.hour_ms if after else 0,
            "last_metric": after.metric if after else "",
        },
    )
    return [
        LedgerLine(
            metric=row["metric"],
            hour_ms=row["hour_ms"],
            committed=row["committed"],
            duplicate=row["duplicate"],
            folded=row["folded"],
            rejected=row["codes"],
        )
        async for row in cursor
    ]


async def last_rejections(connection: Connection, project_id: bytes) -> list[LastRejection]:
    """Of each metric and code the last one, the newest first, as far as the project's newest 100 000 counts of an hour
    reach back. The connection's tenant must be the project's."""
    cursor = await connection.execute(
        """
        SELECT metric, code, sum(rejected)::bigint AS rejected, max(last_ms) AS last_ms,
               (array_agg(example ORDER BY last_ms DESC))[1] AS example
          FROM (SELECT * FROM rejections WHERE partition = %s AND project_id = %s
                 ORDER BY hour_ms DESC LIMIT %s) AS newest
         GROUP BY metric, code ORDER BY max(last_ms) DESC LIMIT %s
        """,
        (partition_of(project_id), uuid.UUID(bytes=project_id), _MOST_LOOKED_AT, MOST_LINES),
    )
    return [
        LastRejection(
            metric=row["metric"],
            code=row["code"],
            count=row["rejected"],
            example=row["example"],
            last_ms=row["last_ms"],
        )
        async for row in cursor
    ]


async def folded(connection: Connection, project_id: bytes) -> list[LastRejection]:
    """As CARDINALITY_LIMIT what of each metric was taken and counted as `__other__`, the newest first, as far back as
    rejections are told. Of the last one only the hour is known. The connection's tenant must be the project's."""
    cursor = await connection.execute(
        """
        SELECT metric, sum(folded)::bigint AS folded, max(hour_ms) AS hour_ms
          FROM (SELECT * FROM ledger WHERE partition = %s AND project_id = %s AND folded > 0
                 ORDER BY hour_ms DESC LIMIT %s) AS newest
         GROUP BY metric ORDER BY max(hour_ms) DESC LIMIT %s
        """,
        (partition_of(project_id), uuid.UUID(bytes=project_id), _MOST_LOOKED_AT, MOST_LINES),
    )
    return [
        LastRejection(
            metric=row["metric"],
            code="CARDINALITY_LIMIT",
            count=row["folded"],
            example="Taken, and counted as __other__: the label set was new, and over a budget.",
            last_ms=row["hour_ms"],
        )
        async for row in cursor
    ]
