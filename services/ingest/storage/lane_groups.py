"""How many lanes the state in Postgres is of, and going over to another number of them in one transaction."""

from collections.abc import Mapping

from chassis.postgres import Connection
from services.ingest.domain import LanePlace
from services.ingest.errors import NotDrainedError, UnreadableLogError


async def check(connection: Connection, lanes: int) -> None:
    """Raises UnreadableLogError where the state is not of so many lanes.

    Versions that did not say how many there are left their frames where those of a single lane are.
    """
    cursor = await connection.execute(
        """
        SELECT coalesce(lanes_in_all, 1) AS there FROM lanes
         WHERE coalesce(lanes_in_all, CASE WHEN position > 0 THEN 1 END) <> %s LIMIT 1
        """,
        (lanes,),
    )
    if (other := await cursor.fetchone()) is not None:
        raise UnreadableLogError(
            f"the state is of {other['there']} lanes, PULSEGATE_LOG_LANES says {lanes}: set it back, or regroup the log"
        )


async def change(connection: Connection, lanes: int, held: Mapping[LanePlace, int]) -> int:
    """Makes it so many lanes, and voids what every owner of the ones before has in memory. Returns how many there were.

    `held`: the newest position of every subject in which the log has frames; what comes later is of the new lanes.
    Raises NotDrainedError where one is not in the state: where there are so many lanes already, of those of others.
    """
    cursor = await connection.execute(
        "SELECT lane, lanes_in_all, epoch, position, commit_ms, log_made_at FROM lanes ORDER BY lane FOR UPDATE"
    )
    rows = await cursor.fetchall()
    before = max((row["lanes_in_all"] or 1 for row in rows), default=lanes)
    positions = {row["lane"]: row["position"] for row in rows}
    if behind := _behind(held, before, lanes, positions):
        raise NotDrainedError(before, behind)
    if before == lanes:
        return before
    delivered = await delivered_until(connection)
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
            "epoch": max(row["epoch"] for row in rows) + 1,
            "position": max((*positions.values(), *held.values())) if any(positions.values()) else 0,
            "commit_ms": max(row["commit_ms"] for row in rows),
            "log_made_at": max((row["log_made_at"] for row in rows if row["log_made_at"]), default=None),
        },
    )
    await connection.execute(
        """
        INSERT INTO sink_watermarks (lane, sink, delivered_ms)
        SELECT lane, sink, until_ms FROM lanes, unnest(%s::text[], %s::bigint[]) AS delivered (sink, until_ms)
        """,
        (list(delivered), list(delivered.values())),
    )
    return before


async def delivered_until(connection: Connection) -> dict[str, int]:
    """Up to which commit each sink has everything of all lanes, Unix milliseconds."""
    cursor = await connection.execute("SELECT sink, min(delivered_ms) AS until_ms FROM sink_watermarks GROUP BY sink")
    return {row["sink"]: row["until_ms"] async for row in cursor}


def _behind(held: Mapping[LanePlace, int], before: int, lanes: int, positions: Mapping[int, int]) -> list[LanePlace]:
    """Lanes that hold frames which are neither in the state nor will be read: of lanes that there are, or are to be."""
    # What other lanes hold was there before the state went over to its own, or came where nobody reads.
    read_before = min(positions.values(), default=0)
    read_on = before == lanes or not any(positions.values())
    return [
        place
        for place, last in sorted(held.items())
        if not (read_on and place.lanes == lanes)
        and last > (positions.get(place.lane, 0) if place.lanes == before else read_before)
    ]
