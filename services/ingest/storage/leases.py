"""Who of the aggregators lives, and which of them has a lane: leases and epochs in Postgres."""

from chassis.postgres import Database
from services.ingest.errors import LaneLostError
from services.ingest.fleet import Others
from services.ingest.storage import lane_groups, postgres_clock

#: The role whose policies cross tenants.
AGGREGATOR_ROLE = "ingest_aggregator"

#: Long after anybody could count an aggregator as alive, so that nobody deletes the row that it is renewing.
_DEAD_KEPT_SECONDS = 3600.0


def session_of(lane: int, epoch: int) -> str:
    """The name of an owner's session while it commits."""
    return f"pulsegate aggregator, lane {lane}, epoch {epoch}"


class Leases:
    """The tables `aggregators` and `lanes`; a `fleet.Attendance`. Every method raises Unavailable."""

    def __init__(self, database: Database) -> None:
        """`database`: connections of their own, so that what keeps a lane waits for nobody's loading and committing."""
        self._database = database

    async def now_ms(self) -> int:
        """See `fleet.Attendance`."""
        return await postgres_clock.now_ms(self._database)

    async def attend(self, owner: str, lanes: int, lease_seconds: float, *, late: bool) -> Others:
        """See `fleet.Attendance`."""
        async with self._database.transaction(role=AGGREGATOR_ROLE) as connection:
            await lane_groups.check(connection, lanes)
            cursor = await connection.execute(
                """
                WITH mine AS (
                    INSERT INTO aggregators (owner, lives_until, late_until)
                    VALUES (%(owner)s, clock_timestamp() + make_interval(secs => %(right)s),
                            clock_timestamp() + make_interval(secs => %(late)s))
                    ON CONFLICT (owner) DO UPDATE
                       SET lives_until = excluded.lives_until, late_until = excluded.late_until
                ), dead AS (
                    DELETE FROM aggregators
                     WHERE lives_until < clock_timestamp() - make_interval(secs => %(kept)s) AND owner <> %(owner)s
                )
                SELECT count(*) FILTER (WHERE lives_until > clock_timestamp()) AS right,
                       count(*) FILTER (WHERE late_until > clock_timestamp()) AS late
                  FROM aggregators WHERE owner <> %(owner)s
                """,
                {
                    "owner": owner,
                    "right": 0.0 if late else lease_seconds,
                    "late": lease_seconds if late else 0.0,
                    "kept": _DEAD_KEPT_SECONDS,
                },
            )
            row = await cursor.fetchone()
            return Others(**row) if row else Others(0, 0)

    async def leave(self, owner: str) -> None:
        """See `fleet.Attendance`."""
        async with self._database.transaction(role=AGGREGATOR_ROLE) as connection:
            await connection.execute("DELETE FROM aggregators WHERE owner = %s", (owner,))

    async def acquire(self, lane: int, lanes: int, owner: str, lease_seconds: float) -> int | None:
        """See `fleet.Attendance`."""
        await self._end_frozen_commit(lane, owner)
        async with self._database.transaction(role=AGGREGATOR_ROLE) as connection:
            await connection.execute(
                "INSERT INTO lanes (lane, lanes_in_all) VALUES (%s, %s) ON CONFLICT DO NOTHING", (lane, lanes)
            )
            # After the insertion: what went over to another number in between has been waited for, and is seen.
            await lane_groups.check(connection, lanes)
            cursor = await connection.execute(
                """
                UPDATE lanes
                   SET epoch = epoch + 1, owner = %(owner)s, lanes_in_all = %(lanes)s,
                       lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
                 WHERE lane = %(lane)s AND (lease_until < clock_timestamp() OR owner = %(owner)s)
                RETURNING epoch
                """,
                {"lane": lane, "lanes": lanes, "owner": owner, "lease": lease_seconds},
            )
            row = await cursor.fetchone()
            return row["epoch"] if row else None

    async def _end_frozen_commit(self, lane: int, owner: str) -> None:
        """An owner that froze while the server waits for the rest of its COPY holds the lane's row for ever: no time
        limit of Postgres ends that. Once its lease is over and it shows no other sign of life, its session is ended; at
        once where it is `owner`'s, who commits no more, and lost the connection without the server knowing."""
        async with self._database.transaction(role=AGGREGATOR_ROLE) as connection:
            cursor = await connection.execute(
                """
                SELECT epoch FROM lanes
                 WHERE lane = %(lane)s
                   AND (owner = %(owner)s
                        OR lease_until < clock_timestamp()
                       AND NOT EXISTS (SELECT FROM aggregators
                                        WHERE aggregators.owner = lanes.owner
                                          AND greatest(lives_until, late_until) > clock_timestamp()))
                """,
                {"lane": lane, "owner": owner},
            )
            row = await cursor.fetchone()
        if row is not None:
            async with self._database.transaction() as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
                    (session_of(lane, row["epoch"]),),
                )

    async def renew(self, lane: int, epoch: int, lease_seconds: float) -> None:
        """Keeps the lane. Raises LaneLostError."""
        async with self._database.transaction(role=AGGREGATOR_ROLE) as connection:
            # A row that is locked is this owner's own commit, which renews the lease too, however long it takes; or it
            # is another owner's already, which that commit will find.
            await connection.execute(
                """
                UPDATE lanes SET lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
                 WHERE epoch = %(epoch)s
                   AND lane = (SELECT lane FROM lanes WHERE lane = %(lane)s FOR UPDATE SKIP LOCKED)
                """,
                {"lane": lane, "epoch": epoch, "lease": lease_seconds},
            )
            cursor = await connection.execute("SELECT epoch FROM lanes WHERE lane = %s", (lane,))
            row = await cursor.fetchone()
            if row is None or row["epoch"] != epoch:
                raise LaneLostError(f"lane {lane}, epoch {epoch}: somebody else has it")

    async def release(self, lane: int, epoch: int) -> None:
        """Gives the lane to whoever asks next."""
        async with self._database.transaction(role=AGGREGATOR_ROLE) as connection:
            await connection.execute(
                "UPDATE lanes SET lease_until = '-infinity' WHERE lane = %s AND epoch = %s", (lane, epoch)
            )
