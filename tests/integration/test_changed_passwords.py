"""Passwords of the servers behind, changed while services hold connections to them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from redis.exceptions import RedisError

from chassis import postgres
from chassis.errors import Unavailable
from chassis.settings import load
from deploy.local.layout import Ports
from deploy.local.servers import Nats, Postgres, Valkey
from pulsegate import frames
from services.gateway import redis_limits
from services.ingest import log
from services.ingest.settings import LogSettings
from tests.suite_servers import RunningServer, running
from tests.waiting import eventually

_ROLE = "whose_password_changes"


@pytest.fixture
def as_superuser(postgres_server: RunningServer[Postgres]) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_server.server.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {_ROLE} LOGIN PASSWORD 'first'")
        yield connection
        connection.execute(f"DROP ROLE {_ROLE}")


async def test_postgres_is_signed_in_to_with_the_password_of_the_moment(
    postgres_server: RunningServer[Postgres], as_superuser: psycopg.Connection
) -> None:
    passwords = ["first"]

    def dsn() -> str:
        return postgres_server.server.dsn(user=_ROLE, password=passwords[-1])

    async with postgres.connected(dsn) as database:

        async def answers() -> bool:
            try:
                await database.probe()
            except (psycopg.Error, Unavailable):
                return False
            return True

        await eventually(answers)
        as_superuser.execute(f"ALTER ROLE {_ROLE} PASSWORD 'second'")
        await database.probe()  # who is signed in stays
        passwords.append("second")
        as_superuser.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [_ROLE])
        await eventually(answers)


async def test_valkey_is_signed_in_to_with_the_password_of_the_moment(
    tmp_path: Path, port_blocks: Callable[[], Ports]
) -> None:
    first = Valkey(
        folder=tmp_path / "valkey", port=port_blocks().server("valkey"), password="first", log=tmp_path / "valkey.log"
    )
    urls = [first.url]
    async with redis_limits.connected(lambda: urls[-1]) as redis:
        with running(first):
            assert await redis.ping()
        second = replace(first, password="second")
        urls.append(second.url)
        with running(second):

            async def answers() -> bool:
                try:
                    return bool(await redis.ping())
                except RedisError:
                    return False

            await eventually(answers)


async def test_the_log_is_signed_in_to_with_the_password_in_the_file(
    tmp_path: Path, port_blocks: Callable[[], Ports]
) -> None:
    ports = port_blocks()
    first = Nats(
        folder=tmp_path / "nats",
        port=ports.server("nats"),
        monitoring_port=ports.server("nats-monitoring"),
        password="a+b/c@d%",
        log=tmp_path / "nats.log",
    )
    file = tmp_path / "nats_url"
    file.write_text(first.url)
    environment = {
        "PULSEGATE_OPS_PORT": "1",
        "PULSEGATE_SERVICE_TOKEN": "shared",
        "PULSEGATE_NATS_URL_FILE": str(file),
        "PULSEGATE_LOG_MAX_BYTES": str(1 << 20),
    }
    async with log.connected(load(LogSettings, environment), "test") as stream:

        async def answers() -> bool:
            try:
                await stream.probe()
            except Unavailable:
                return False
            return True

        with running(first):
            await eventually(answers)
            async with frames.connected(first.url) as of_a_backup:
                await of_a_backup.account_info()
        second = replace(first, password="second")
        file.write_text(second.url)
        with running(second):
            await eventually(answers)
