"""How many lanes the state in Postgres is of, and going over to another number of them in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass

from chassis.postgres import Connection
from services.ingest.errors import NotDrainedError, UnreadableLogError


@dataclass(frozen=True, slots=True)
class Grouping:
    """The lanes that there are. State is keyed by partition: a lane has only its place in the log of its own."""

    lanes: int
    #: Those that somebody has worked on.
    worked_on: tuple[int, ...]


async def check(connection: Connection, lane: int, lanes: int) -> None:
    """Raises UnreadableLogError where the state is not of so many lanes. The first to ask says how many there are."""
    cursor = await connection.execute("SELECT lanes_in_all FROM lanes WHERE lanes_in_all <> %s LIMIT 1", (lanes,))
    if (other := await cursor.fetchone()) is not None:
        raise UnreadableLogError(
            f"the state is of {other['lanes_in_all']} lanes, PULSEGATE_LOG_LANES says {lanes}:"
            " set it back, or regroup the log"
        )
    await connection.execute(
        "UPDATE lanes SET lanes_in_all = %s WHERE lane = %s AND lanes_in_all IS NULL", (lanes, lane)
    )


async def read(connection: Connection) -> Grouping:
    """The present grouping; of versions that did not say, as if there were one lane: so their subjects are called."""
    cursor = await connection.execute("SELECT lane, lanes_in_all FROM lanes ORDER BY lane")
    rows = await cursor.fetchall()
    return Grouping(max((row["lanes_in_all"] or 1 for row in rows), default=1), tuple(row["lane"] for row in rows))


async def change(connection: Connection, lanes: int, held: Mapping[int, int]) -> None:
    """Makes it so many lanes, and voids what every owner of the ones before has in memory.

    `held`: by lane, the position of the newest frame that the log holds; all later ones are of the new lanes. Raises
    NotDrainedError where one of them is not in the state.
    """
    cursor = await connection.execute(
        "SELECT lane, epoch, position, commit_ms, log_made_at FROM lanes ORDER BY lane FOR UPDATE"
    )
    before = await cursor.fetchall()
    if behind := [row["lane"] for row in before if held.get(row["lane"], 0) > row["position"]]:
        raise NotDrainedError(
            f"batches in lane {', '.join(map(str, behind))} are not in the state yet:"
            " stop the receivers, let the aggregators go on until the lag is 0, and try again"
        )
    cursor = await connection.execute("SELECT sink, min(delivered_ms) AS until_ms FROM sink_watermarks GROUP BY sink")
    delivered = {row["sink"]: row["until_ms"] async for row in cursor}
    await connection.execute("DELETE FROM sink_watermarks")
    await connection.execute("DELETE FROM lanes")
    await connection.execute(
        """
        INSERT INTO lanes (lane, lanes_in_all, epoch, position, commit_ms, log_made_at)
        SELECT lane, %(lanes)s, %(epoch)s, %(position)s, %(commit_ms)s, %(log_made_at)s
          FROM generate_series(0, %(lanes)s - 1) AS lane
        """,
        {
            "lanes": lanes,
            # Greater than any before, of whatever lane: what an owner of before began is refused.
            "epoch": max((row["epoch"] for row in before), default=0) + 1,
            "position": max((*held.values(), *(row["position"] for row in before)), default=0),
            "commit_ms": max((row["commit_ms"] for row in before), default=0),
            "log_made_at": max((row["log_made_at"] for row in before if row["log_made_at"]), default=None),
        },
    )
    await connection.execute(
        """
        INSERT INTO sink_watermarks (lane, sink, delivered_ms)
        SELECT lane, sink, until_ms FROM lanes, unnest(%s::text[], %s::bigint[]) AS delivered (sink, until_ms)
        """,
        (list(delivered), list(delivered.values())),
    )
