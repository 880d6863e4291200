"""Waiting until statements of other connections are held up, to put two transactions into a certain order."""

import asyncio

import psycopg

from tests.suite_database import Database


async def until_somebody_waits_for_a_lock(database: Database, many: int = 1) -> None:
    async with (
        asyncio.timeout(30),
        await psycopg.AsyncConnection.connect(database.superuser_dsn, autocommit=True) as connection,
    ):
        while True:
            cursor = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            [(waiting,)] = await cursor.fetchall()
            if waiting >= many:
                return
