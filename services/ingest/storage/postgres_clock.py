"""Postgres' clock, which all processes share."""

from chassis.postgres import Database


async def now_ms(database: Database) -> int:
    """The time by it, Unix milliseconds. Raises Unavailable."""
    async with database.transaction() as connection:
        cursor = await connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms")
        [row] = await cursor.fetchall()
        return int(row["now_ms"])
