"""The pool and its transactions, on real Postgres: bound to a tenant, and back after an outage by themselves."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier
from structlog.typing import EventDict

from chassis import health, postgres
from chassis.errors import Unavailable
from chassis.health import Health
from chassis.migrations import SchemaProbe
from chassis.postgres import Connection, Database
from chassis.query_plans import QueryPlans
from deploy.local.servers import Postgres
from tests.captured_logs import logged_by
from tests.forwarder import Forwarder
from tests.integration.chassis.conftest import Schema
from tests.suite_servers import RunningServer
from tests.waiting import eventually

TABLE = """
CREATE TABLE things (tenant_id text NOT NULL, name text NOT NULL);
ALTER TABLE things ENABLE ROW LEVEL SECURITY;
ALTER TABLE things FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON things USING (tenant_id = nullif(current_setting('app.tenant_id', true), ''));
CREATE POLICY by_name ON things FOR SELECT USING (name = nullif(current_setting('app.name', true), ''));
CREATE POLICY door ON things FOR SELECT TO config_feed USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON things TO config;
GRANT SELECT ON things TO config_feed;
"""


@pytest.fixture
async def things(schema: Schema) -> AsyncIterator[Database]:
    """A pool of a single connection, so that whatever one transaction leaves behind meets the next."""
    with psycopg.connect(schema.owner_dsn) as owner:
        owner.execute(TABLE)
    with psycopg.connect(schema.superuser_dsn) as superuser:
        superuser.execute("SET synchronous_commit = on")  # the tests' server may forget other commits when it is killed
        superuser.execute("INSERT INTO config.things VALUES ('a', 'of a'), ('b', 'of b')")
    async with postgres.connected(schema.dsn, most_connections=1, statement_timeout_seconds=1) as database:
        yield database


async def names(database: Database, **settings: str) -> list[str]:
    async with database.transaction(**settings) as connection:
        rows = await (await connection.execute("SELECT name FROM things ORDER BY name")).fetchall()
        return [row["name"] for row in rows]


async def test_a_transaction_sees_its_tenants_rows_alone(things: Database) -> None:
    assert await names(things, tenant_id="a") == ["of a"]
    assert await names(things, tenant_id="b") == ["of b"]
    assert await names(things, tenant_id="c") == []


async def test_without_a_tenant_nothing_is_seen_also_right_after_one_that_saw(things: Database) -> None:
    assert await names(things) == []
    assert await names(things, tenant_id="a") == ["of a"]
    assert await names(things) == []
    assert await names(things, tenant_id="") == []


async def test_after_a_transaction_that_failed_nothing_is_left_of_its_tenant(things: Database) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        async with things.transaction(tenant_id="a", role="config_feed") as connection:
            await connection.execute("SELECT 1/0")
    assert await names(things) == []


async def test_rows_of_another_tenant_can_be_neither_written_nor_deleted(things: Database) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with things.transaction(tenant_id="a") as connection:
            await connection.execute("INSERT INTO things VALUES ('b', 'planted')")
    async with things.transaction(tenant_id="a") as connection:
        deleted = await connection.execute("DELETE FROM things")
    assert deleted.rowcount == 1
    assert await names(things, tenant_id="b") == ["of b"]


async def test_a_narrow_door_opens_for_its_setting_and_its_role_alone(things: Database) -> None:
    assert await names(things, name="of b") == ["of b"]
    assert await names(things, role="config_feed") == ["of a", "of b"]
    assert await names(things) == []


async def test_a_role_that_is_not_the_services_cannot_be_entered(things: Database) -> None:
    for role in ("auth_feed", "config_owner", "postgres"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with things.transaction(role=role):
                raise AssertionError("entered")


async def test_what_fails_is_rolled_back(things: Database) -> None:
    async def fail() -> None:
        async with things.transaction(tenant_id="a") as connection:
            await connection.execute("INSERT INTO things VALUES ('a', 'half')")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert await names(things, tenant_id="a") == ["of a"]


async def test_a_statement_that_takes_too_long_is_unavailable_and_the_pool_goes_on(things: Database) -> None:
    with pytest.raises(Unavailable, match="slow"):
        async with things.transaction() as connection:
            await connection.execute("SELECT pg_sleep(30)")
    assert await names(things, tenant_id="a") == ["of a"]


async def test_a_database_that_takes_no_changes_is_unavailable_until_it_does(things: Database) -> None:
    async def change(how: str) -> None:
        async with things.transaction(tenant_id="a") as connection:
            await connection.execute(how.encode())
            await connection.execute("DELETE FROM things")

    with pytest.raises(Unavailable, match="takes no changes") as caught:
        await change("SET TRANSACTION READ ONLY")  # as each of a standby's is
    assert caught.value.retry_after_seconds
    assert await names(things, tenant_id="a") == ["of a"]
    await change("SET TRANSACTION READ WRITE")
    assert await names(things, tenant_id="a") == []


async def test_when_every_connection_is_taken_one_is_told_so_in_bounded_time(things: Database) -> None:
    async with things.transaction():
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await names(things)
        assert time.monotonic() - began < 20
        assert caught.value.retry_after_seconds
    assert await names(things, tenant_id="a") == ["of a"]


async def test_a_cancelled_transaction_gives_its_connection_back(things: Database) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), things.transaction(tenant_id="a") as connection:
            await connection.execute("SELECT pg_sleep(30)")
    assert await names(things, tenant_id="a") == ["of a"]


@pytest.mark.parametrize("turns", range(0, 12, 2))
async def test_a_cancellation_that_comes_together_with_a_connection_is_not_lost(things: Database, turns: int) -> None:
    async def work_for_ever() -> None:
        while True:
            await names(things)
            await asyncio.sleep(0.01)

    async with things.transaction():
        worker = asyncio.create_task(work_for_ever())
        await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    worker.cancel()
    done, _ = await asyncio.wait([worker], timeout=20)
    assert done


async def test_slow_queries_are_logged_without_their_parameters(
    things: Database, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with things.transaction() as connection:
        await connection.execute("SELECT pg_sleep(0.15), %s::text", ("CANARY",))
        composed = SQL("SELECT pg_sleep(0.15) AS {}, %s::text").format(Identifier("nap"))
        await connection.execute(composed, ("CANARY",))
    logged = capsys.readouterr().out + caplog.text  # whichever an earlier test's configuration left in use
    assert "slow query" in logged
    assert "SELECT pg_sleep(0.15), %s::text" in logged
    assert 'pg_sleep(0.15) AS \\"nap\\"' in logged or 'pg_sleep(0.15) AS "nap"' in logged
    assert "Composed" not in logged
    assert "CANARY" not in logged


_SLOWLY = "SELECT name, pg_sleep(0.15)::text FROM things WHERE name <> %s"


async def slow_plan(connection: Connection, query: Any, *params: str) -> EventDict:
    """What is logged of a slow query."""
    with logged_by(postgres) as said:
        await connection.execute(query, params)
    (line,) = [line for line in said if line["event"] == "slow query"]
    return line


async def test_a_slow_query_is_logged_with_its_plan_and_nothing_of_its_data(schema: Schema, things: Database) -> None:
    async with postgres.connected(schema.dsn) as others, things.transaction(tenant_id="a") as connection:
        first = await slow_plan(connection, _SLOWLY, "CANARY")
        again = await slow_plan(connection, _SLOWLY, "other")
        async with others.transaction(tenant_id="a") as another:
            await another.execute("SET LOCAL enable_seqscan = off")
            joined = await slow_plan(another, f"{_SLOWLY} ORDER BY name", "other")
            same = await slow_plan(another, _SLOWLY, "other")
    assert first["plan_outline"].startswith("Seq Scan things")
    assert first["plan"] == again["plan"] == same["plan"] != joined["plan"]
    assert "CANARY" not in str(first)


async def test_asking_for_a_plan_carries_nothing_out_and_costs_no_transaction(things: Database) -> None:
    async with things.transaction(tenant_id="a") as connection:
        slow = "INSERT INTO things SELECT 'a', pg_sleep(0.15)::text || %s RETURNING name"
        assert "ModifyTable" in (await slow_plan(connection, slow, "once"))["plan_outline"]
        assert await QueryPlans().of(connection, "SELECT", "SELECT nothing FROM nowhere", None) == {}
    assert await names(things, tenant_id="a") == ["of a", "once"]


async def test_a_plan_is_asked_for_once_a_minute(things: Database) -> None:
    now = [0.0]
    plans = QueryPlans(lambda: now[0])
    async with things.transaction(tenant_id="a") as connection:
        query = "SELECT name FROM things"
        before = await plans.of(connection, query, query, None)
        assert await plans.of(connection, query, "not even a statement", None) == before
        now[0] = 61.0
        await connection.execute("SET LOCAL enable_seqscan = off")
        assert await plans.of(connection, query, "SELECT name FROM things ORDER BY name", None) != before


async def test_a_restart_in_mid_transaction_is_unavailable_and_everything_goes_on_afterwards(
    things: Database, postgres_server: RunningServer[Postgres]
) -> None:
    async def interrupted() -> None:
        async with things.transaction(tenant_id="a") as connection:
            await connection.execute("INSERT INTO things VALUES ('a', 'half')")
            with postgres_server.away():
                await connection.execute("SELECT 1")

    with pytest.raises(Unavailable):
        await interrupted()
    await eventually(lambda: answered(things), within_seconds=20)
    assert await names(things, tenant_id="a") == ["of a"]


async def answered(database: Database) -> bool:
    try:
        await database.probe()
        await names(database)
    except (Unavailable, psycopg.Error, TimeoutError):
        return False
    return True


@pytest.mark.timeout(180)
async def test_the_pool_comes_back_after_an_outage_longer_than_it_tries_to_reconnect(
    things: Database, postgres_server: RunningServer[Postgres]
) -> None:
    with postgres_server.away():
        away_since = time.monotonic()
        waits: list[float] = []
        while time.monotonic() - away_since < 14:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await names(things)
            waits.append(time.monotonic() - began)
    assert max(waits) < 20
    await eventually(lambda: answered(things), within_seconds=60)


async def test_a_service_may_start_before_its_database(
    schema: Schema, postgres_server: RunningServer[Postgres]
) -> None:
    with postgres_server.away():
        pool = postgres.connected(schema.dsn)
        database = await pool.__aenter__()
    try:
        await eventually(lambda: asked(database), within_seconds=60)
    finally:
        await pool.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"password": "hunter2"}, 'password authentication failed for user "config"'),
        ({"dbname": "nowhere"}, 'database "nowhere" does not exist'),
        ({"port": "1"}, "Connection refused"),
    ],
)
async def test_readiness_and_the_log_say_why_there_is_no_connection(
    change: dict[str, str], reason: str, schema: Schema
) -> None:
    checks = Health()
    async with postgres.connected(make_conninfo(schema.dsn, **change)) as database:
        checks.add("postgres", SchemaProbe(database, 1), hard=True)
        with logged_by(health) as said:
            await checks.refresh()
        with pytest.raises(Unavailable) as caught:
            await names(database)
    told = [checks.report()["checks"]["postgres"]["reason"], said[0]["reason"], str(caught.value.__cause__)]
    assert all(reason in each for each in told)
    assert "hunter2" not in f"{told} {said}"


async def asked(database: Database) -> bool:
    try:
        async with database.transaction() as connection:
            await connection.execute("SELECT 1")
    except Unavailable:
        return False
    return True


async def test_what_falls_silent_is_given_up_in_bounded_time_and_new_connections_take_its_place(schema: Schema) -> None:
    """As behind a firewall that has forgotten the connections of before: they stay open, and nothing comes."""
    way = Forwarder(int(str(conninfo_to_dict(schema.dsn)["port"])))
    async with way.forwarding():
        dsn = make_conninfo(schema.dsn, port=way.listens)
        async with postgres.connected(dsn, statement_timeout_seconds=1) as database:
            await eventually(lambda: asked(database))

            async def silenced() -> None:
                async with database.transaction() as connection:
                    way.fall_silent()
                    await connection.execute("SELECT 1")

            began = time.monotonic()
            with pytest.raises(Unavailable):
                await silenced()
            assert time.monotonic() - began < 10
            await eventually(lambda: asked(database))
            way.fall_silent()
            await eventually(lambda: asked(database), within_seconds=10)


async def test_a_transaction_may_have_a_longer_timeout_of_its_own(schema: Schema) -> None:
    async with postgres.connected(schema.dsn, most_connections=1, statement_timeout_seconds=1) as database:
        for _ in range(2):
            async with database.transaction(10.0) as connection:
                await connection.execute("SELECT pg_sleep(3.5)")
            with pytest.raises(Unavailable, match="slow"):
                async with database.transaction() as connection:
                    await connection.execute("SELECT pg_sleep(5)")


async def test_each_pools_figures_are_metrics(things: Database, schema: Schema) -> None:
    def figures(pool: str) -> list[float | None]:
        return [
            REGISTRY.get_sample_value("pulsegate_postgres_pool_connections", {"pool": pool, "state": state})
            for state in ("max", "size", "available", "waiting")
        ]

    await things.probe()
    async with postgres.connected(schema.dsn, pool_name="other", most_connections=1) as other:
        async with other.transaction():
            waiting = asyncio.create_task(other.probe())
            await eventually(lambda: asyncio.sleep(0, figures("other") == [1, 1, 0, 1]), what="one waits")
            assert figures("main") == [1, 1, 1, 0]
        await waiting
