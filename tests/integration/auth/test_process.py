"""auth as a process: its start before its database, its faults, its migrations, its end."""

import asyncio
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest

from chassis.errors import Unavailable
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from deploy.local.layout import CHECKOUT
from services.auth.__main__ import main
from services.auth.app import MIGRATIONS
from services.auth.settings import Settings
from tests.integration.auth.client import PASSWORD, connected_to, running_auth
from tests.integration.auth.locks import until_somebody_waits_for_a_lock
from tests.suite_database import Database
from tests.waiting import eventually, wait_for


def environment(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "PULSEGATE_OPS_PORT": str(settings.operations_port),
        "PULSEGATE_GRPC_PORT": str(settings.grpc_port),
        "PULSEGATE_POSTGRES_DSN": settings.dsn,
        "PULSEGATE_SERVICE_TOKEN": settings.service_token,
        "PULSEGATE_AUTH_MASTER_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "PULSEGATE_DRAIN_SECONDS": "60",  # longer than any of these tests waits for its end
    }


@contextmanager
def process(settings: Settings, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """`python -m services.auth`."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", "services.auth"],
            cwd=CHECKOUT,
            env=environment(settings),
            stdout=output,
            stderr=output,
        )
        try:
            yield running
        finally:
            running.kill()
            running.wait()


async def readiness(settings: Settings) -> tuple[int, dict[str, Any]]:
    """Status 0 while nobody listens."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"http://127.0.0.1:{settings.operations_port}/health/ready") as answer:
                return answer.status, await answer.json()
        except aiohttp.ClientConnectionError:
            return 0, {}


async def is_ready(settings: Settings) -> bool:
    return (await readiness(settings))[0] == 200


async def test_the_process_serves_ends_in_time_and_keeps_secrets_out_of_its_log(
    settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "auth.log"
    with process(settings, log) as running:
        async with connected_to(settings) as auth:
            await eventually(auth.is_up, within_seconds=60)
            ada = await auth.sign_up()
            key = await auth.create_key(ada)
            stream = auth.watch()
            await anext(stream)

            await eventually(lambda: is_ready(settings))
            running.send_signal(signal.SIGTERM)
            assert [message async for message in stream if message.changed_ids] == []
        assert wait_for(lambda: running.poll() is not None, within_seconds=30)

    assert running.returncode == 0
    said = log.read_text()
    for secret in (ada.email, ada.access_token, ada.refresh_token, key.token, settings.service_token):
        assert secret not in said
    assert "Traceback" not in said


async def test_a_service_that_starts_before_its_schema_waits_and_says_so(
    settings: Settings, database: Database
) -> None:
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute("ALTER SCHEMA auth RENAME TO not_yet")
        connection.execute("CREATE SCHEMA auth; GRANT USAGE ON SCHEMA auth TO auth")
        async with running_auth(settings, wait=False) as auth:

            async def says_so() -> bool:
                status, report = await readiness(settings)
                reasons = str(report)
                return (
                    status == 503 and "the schema is at migration 0" in reasons and "migrations have not run" in reasons
                )

            await eventually(says_so)
            assert not await auth.is_up()
            connection.execute("DROP SCHEMA auth; ALTER SCHEMA not_yet RENAME TO auth")

            await eventually(auth.is_up)
            assert await auth.sign_up()


async def test_losing_every_database_connection_needs_no_restart(settings: Settings, database: Database) -> None:
    async with running_auth(settings) as auth:
        ada = await auth.sign_up()
        stream = auth.watch()
        await anext(stream)

        with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'auth'")
        await anext(stream)

        assert await auth.create_key(ada)


async def stays_ready(settings: Settings, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not await is_ready(settings):
            return False
        await asyncio.sleep(0.05)
    return True


async def test_who_waits_for_locks_of_their_own_leaves_connections_to_others(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.timely_turns._LONGEST_WAIT_SECONDS", 1.0)
    async with running_auth(settings) as auth:
        eve, *four = [await auth.sign_up() for _ in range(5)]
        calls = [
            (pb.CreateKeyRequest(project_id=one.project_id, name="mine", kind=pb.KEY_KIND_SECRET), principal)
            for one in four
            for principal in [await auth.principal(one)] * 16
        ]
        with psycopg.connect(database.superuser_dsn) as holder:
            holder.execute(
                "SELECT FROM auth.projects WHERE id = ANY (%s) FOR UPDATE", ([one.project_id for one in four],)
            )
            waiting = [asyncio.create_task(auth.account("CreateKey", *call)) for call in calls]
            await until_somebody_waits_for_a_lock(database, 4)
            async with asyncio.timeout(2):
                assert await auth.create_key(eve)
                signing_in = pb.SignInRequest(email=eve.email, password=PASSWORD)
                assert (await auth.account("SignIn", signing_in)).user.id == eve.user_id
            *_, refused = (await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION))[0]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)

    told = {str(error.details) for error in outcomes if isinstance(error, Unavailable)}
    assert isinstance(refused.exception(), Unavailable)
    assert told == {str({"waitingFor": "turn"})}, "nothing that speaks against auth, and opens its callers' breakers"
    assert any(isinstance(outcome, pb.CreateKeyResponse) for outcome in outcomes)


async def test_what_services_ask_of_all_tenants_waits_for_no_turn_of_one(
    settings: Settings, database: Database
) -> None:
    async with running_auth(settings, most_connections=2) as auth:
        ada = await auth.sign_up()
        with psycopg.connect(database.superuser_dsn) as holder:
            holder.execute("SELECT FROM auth.projects WHERE id = %s FOR UPDATE", (ada.project_id,))
            waiting = asyncio.create_task(auth.create_key(ada))  # it has the only turn
            await until_somebody_waits_for_a_lock(database)
            asked = pb.FindDeletedProjectsRequest(project_ids=[ada.project_id])
            answers = await asyncio.gather(*(auth.account("FindDeletedProjects", asked) for _ in range(16)))
        assert await waiting
    assert [list(answer.project_ids) for answer in answers] == [[]] * 16


async def test_auth_stays_ready_while_calls_hold_all_their_connections(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.health._INTERVAL_SECONDS", 0.05)
    async with running_auth(settings, most_connections=2) as auth:
        with psycopg.connect(database.superuser_dsn) as migrating:
            migrating.execute("LOCK TABLE auth.projects IN SHARE MODE")
            waiting = [asyncio.create_task(auth.sign_up()) for _ in range(2)]
            await until_somebody_waits_for_a_lock(database, 2)
            assert await stays_ready(settings, seconds=2.5)  # longer than readiness waits for the database
        await asyncio.gather(*waiting)


async def test_a_wrong_master_key_is_told_in_readiness(settings: Settings) -> None:
    async with running_auth(settings):
        pass
    async with running_auth(replace(settings, master_key=bytes(32)), wait=False):

        async def says_so() -> bool:
            status, report = await readiness(settings)
            return status == 503 and "PULSEGATE_AUTH_MASTER_KEY" in str(report)

        await eventually(says_so)


async def test_a_stranger_without_the_service_token_is_turned_away(settings: Settings) -> None:
    async with running_auth(settings), connected_to(replace(settings, service_token="guessed")) as stranger:
        with pytest.raises(Exception, match="Pulsegate's own services"):
            await stranger.signing_keys()


def test_the_process_names_every_fault_of_its_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("PULSEGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PULSEGATE_AUTH_MASTER_KEY", "c2hvcnQ=")
    monkeypatch.setenv("PULSEGATE_BCRYPT_COST", "11")

    with pytest.raises(SystemExit) as ended:
        main([])

    said = capsys.readouterr().err
    assert ended.value.code == 78
    for fault in (
        "PULSEGATE_AUTH_MASTER_KEY: must be 32 bytes in base64url",
        "PULSEGATE_BCRYPT_COST: must be a whole number from 12 to 16",
        "PULSEGATE_POSTGRES_DSN: is required and not set",
        "PULSEGATE_SERVICE_TOKEN: is required and not set",
    ):
        assert fault in said
    assert "c2hvcnQ" not in said


def test_migrating_twice_changes_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSEGATE_POSTGRES_OWNER_DSN", database.owner_dsn("auth"))

    main(["migrate"])

    with psycopg.connect(database.superuser_dsn) as connection:
        assert connection.execute("SELECT max(number) FROM auth.schema_migrations").fetchall() == [
            (len(list(MIGRATIONS.glob("*.sql"))),)
        ]


def test_an_unknown_command_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["services.auth", "destroy"])
    monkeypatch.delitem(sys.modules, "services.auth.__main__")

    with pytest.raises(SystemExit, match=r"usage: python -m services\.auth"):
        runpy.run_module("services.auth", run_name="__main__")
