"""Waiting until a statement of another connection is held up, to put two transactions into a certain order."""

import asyncio

import psycopg

from tests.suite_database import Database


async def until_somebody_waits_for_a_lock(database: Database) -> None:
    async with (
        asyncio.timeout(10),
        await psycopg.AsyncConnection.connect(database.superuser_dsn, autocommit=True) as connection,
    ):
        while True:
            cursor = await connection.execute(
                "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            if await cursor.fetchone() is not None:
                return
