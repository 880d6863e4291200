"""The service over gRPC with real Postgres: what it answers, keeps, refuses and outlives."""

import asyncio
import hashlib
import shutil
import time
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
from prometheus_client import REGISTRY

from chassis import context, grpc_client
from chassis.breakers import upstream_fault
from chassis.errors import DeadlineExceeded, Internal, Invalid, NotFound, PulsegateError, Unauthenticated, Unavailable
from contracts.pulsegate.codegen.v1 import codegen_pb2, codegen_pb2_grpc
from contracts.pulsegate.config.v1.definitions_pb2 import Label, Metric
from deploy.local.layout import CHECKOUT
from deploy.local.servers import Postgres
from services.codegen.errors import RuntimeNotJoinable
from tests.integration.codegen.service import KEY, SERVICE_TOKEN, Codegen, StartCodegen
from tests.integration.codegen.upstreams import PROJECT, Config, Upstreams, metric
from tests.suite_database import Database
from tests.suite_servers import RunningServer
from tests.waiting import eventually

JAVASCRIPT, PYTHON = codegen_pb2.LANGUAGE_JAVASCRIPT, codegen_pb2.LANGUAGE_PYTHON
SCRIPT: dict[str, Any] = {
    "language": JAVASCRIPT,
    "packaging": codegen_pb2.PACKAGING_SCRIPT,
    "publishable_key": KEY,
    "minify": True,
}
OTHER_TENANT = "0192f0c1-0000-7000-8000-0000000000f1"
OTHER_PROJECT = "0192f0c1-0000-7000-8000-0000000000f2"


def _stored(database: Database, what: str = "count(*)") -> Any:
    with psycopg.connect(database.superuser_dsn) as connection:
        row = connection.execute(f"SELECT {what} FROM codegen.artifacts").fetchone()  # noqa: S608 - the tests' own text
    assert row is not None
    return row[0]


async def _generate(codegen: Codegen, upstreams: Upstreams, name: str) -> str:
    upstreams.config.metrics[PROJECT] = [metric(name)]
    return (await codegen.generate(**SCRIPT)).sha256


def _many_metrics(count: int) -> list[Metric]:
    kinds = ("counter", "gauge", "histogram", "summary")
    labels = [Label(name="plan", required=True, values=["free", "pro"]), Label(name="region"), Label(name="status")]
    return [metric(f"part_{number}_things", kinds[number % 4], number=number, labels=labels) for number in range(count)]


async def test_the_same_definitions_give_the_same_bytes_in_whatever_order_they_come(
    codegen: Codegen, upstreams: Upstreams
) -> None:
    one, two = metric("a_total", number=1), metric("b_total", number=2)
    for options in ({"language": PYTHON}, {"language": JAVASCRIPT}, SCRIPT):
        upstreams.config.metrics[PROJECT] = [one, two]
        first = await codegen.generate(**options)
        upstreams.config.metrics[PROJECT] = [two, one]
        second = await codegen.generate(**options)
        assert first == second
        assert first.sha256 == hashlib.sha256(first.content).hexdigest()


async def test_a_new_definition_is_in_the_next_client(codegen: Codegen, upstreams: Upstreams) -> None:
    before = await codegen.generate(**SCRIPT)
    upstreams.config.metrics[PROJECT] = [metric("new_total")]
    after = await codegen.generate(**SCRIPT)
    assert b"newTotal" not in before.content
    assert b"newTotal" in after.content


async def test_a_deleted_definition_is_not_in_the_client(codegen: Codegen, upstreams: Upstreams) -> None:
    gone = metric("gone_total")
    gone.deleted_at.FromSeconds(1)
    upstreams.config.metrics[PROJECT] = [gone, metric("there_total")]
    content = (await codegen.generate(language=PYTHON)).content
    assert b"there_total" in content
    assert b"gone_total" not in content


async def test_a_pinned_client_is_answered_after_the_definitions_changed_and_after_a_restart(
    start_codegen: StartCodegen, upstreams: Upstreams
) -> None:
    async with start_codegen() as codegen:
        upstreams.config.metrics[PROJECT] = [metric("old_total")]
        pinned = await codegen.generate(**SCRIPT)
        upstreams.config.metrics[PROJECT] = [metric("new_total")]
        assert (await codegen.generate(**SCRIPT)).sha256 != pinned.sha256
        assert (await codegen.artifact(pinned.sha256)).content == pinned.content
    async with start_codegen() as codegen:
        for _ in range(2):  # from the database, then from memory
            again = await codegen.artifact(pinned.sha256)
            assert (again.content, again.content_type, again.file_name) == (
                pinned.content,
                pinned.content_type,
                pinned.file_name,
            )


async def test_an_artifact_is_only_found_by_its_own_project(codegen: Codegen, upstreams: Upstreams) -> None:
    pinned = await codegen.generate(**SCRIPT)
    for others in (
        {"project": OTHER_PROJECT},
        {"tenant": OTHER_TENANT, "project": OTHER_PROJECT},
        {"tenant": OTHER_TENANT, "project": PROJECT},
    ):
        with pytest.raises(NotFound) as answered:
            async with asyncio.timeout(5):
                await codegen.artifact(pinned.sha256, **others)
        assert answered.value.code == "NOT_FOUND"


async def test_rows_are_seen_by_their_own_tenant_only(codegen: Codegen, database: Database) -> None:
    await codegen.generate(**SCRIPT)
    with psycopg.connect(database.dsn("codegen")) as connection:

        def seen() -> int:
            row = connection.execute("SELECT count(*) FROM artifacts").fetchone()
            assert row is not None
            return int(row[0])

        assert seen() == 0
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", (OTHER_TENANT,))
        assert seen() == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "INSERT INTO artifacts"
                " (tenant_id, project_id, input_hash, content_hash, content, content_type, file_name)"
                " VALUES (gen_random_uuid(), gen_random_uuid(), sha256(''), sha256(''), '', '', '')"
            )


async def test_an_unknown_hash_is_not_found_and_a_malformed_one_refused(codegen: Codegen) -> None:
    with pytest.raises(NotFound):
        await codegen.artifact("0" * 64)
    for malformed in ("", "0" * 63, "G" * 64, "../" * 20):
        with pytest.raises(Invalid) as refused:
            await codegen.artifact(malformed)
        assert refused.value.details == {"fields": {"sha256": "must be 64 hexadecimal digits"}}


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        ({}, {"language"}),
        ({"language": 99}, {"language"}),
        ({"language": JAVASCRIPT, "packaging": 99}, {"packaging"}),
        ({"language": PYTHON, "endpoint": ""}, {"endpoint"}),
        ({"language": PYTHON, "endpoint": "https://user:password@example.com"}, {"endpoint"}),
        ({"language": PYTHON, "endpoint": 'https://example.com/"'}, {"endpoint"}),
        ({"language": PYTHON, "endpoint": "https://example.com\n"}, {"endpoint"}),
        (
            {"language": PYTHON, "endpoint": "javascript:x", "publishable_key": "sk_secret"},
            {"endpoint", "publishableKey"},
        ),
    ],
)
async def test_what_cannot_be_generated_is_refused_by_member(
    codegen: Codegen, database: Database, request_: dict[str, Any], fields: set[str]
) -> None:
    with pytest.raises(Invalid) as refused:
        await codegen.generate(**request_)
    assert refused.value.details is not None
    assert set(refused.value.details["fields"]) == fields
    assert _stored(database) == 0


async def test_a_call_without_a_principal_of_a_project_is_refused(codegen: Codegen) -> None:
    stub = codegen_pb2_grpc.CodegenServiceStub(codegen.channel.grpc_channel)
    with pytest.raises(Unauthenticated):
        await codegen.channel.call(stub.GenerateClient, codegen_pb2.GenerateClientRequest(language=PYTHON))
    with pytest.raises(Unauthenticated):
        await codegen.generate(language=PYTHON, tenant="", project="")


async def test_fifty_who_ask_at_once_get_one_client_rendered_once(
    codegen: Codegen, upstreams: Upstreams, database: Database
) -> None:
    upstreams.config.metrics[PROJECT] = _many_metrics(50)
    before = _rendered()
    clients = await asyncio.gather(*(codegen.generate(**SCRIPT) for _ in range(50)))
    assert len({client.sha256 for client in clients}) == 1
    assert _rendered() == before + 1
    assert _stored(database) == 1


def _rendered() -> float:
    exposed = {"language": "javascript", "source": "rendered"}
    return REGISTRY.get_sample_value("pulsegate_codegen_clients_total", exposed) or 0.0


async def test_two_replicas_share_what_they_generated(start_codegen: StartCodegen, database: Database) -> None:
    async with start_codegen() as one, start_codegen() as other:
        assert await one.generate(**SCRIPT) == await other.generate(**SCRIPT)
    assert _stored(database) == 1


async def test_clients_that_nobody_asks_for_are_pruned_and_those_in_use_are_not(
    start_codegen: StartCodegen, upstreams: Upstreams, database: Database
) -> None:
    def age(days: int, sha256: str) -> None:
        with psycopg.connect(database.superuser_dsn) as connection:
            connection.execute(
                "UPDATE codegen.artifacts SET used_at = now() - make_interval(days => %s)"
                " WHERE content_hash = decode(%s, 'hex')",
                (days, sha256),
            )

    async with start_codegen() as codegen:
        unused = await _generate(codegen, upstreams, "unused_total")
        pinned = await _generate(codegen, upstreams, "pinned_total")
    age(31, unused)
    age(29, pinned)
    async with start_codegen(artifact_retention_days=30) as codegen:
        await codegen.artifact(pinned)
        assert _stored(database, "count(*) FILTER (WHERE used_at > now() - interval '1 hour')") == 1
        await _generate(codegen, upstreams, "another_total")
        with pytest.raises(NotFound):
            await codegen.artifact(unused)
        assert (await codegen.artifact(pinned)).content


async def test_a_project_keeps_only_so_many_clients(
    start_codegen: StartCodegen, upstreams: Upstreams, database: Database
) -> None:
    async with start_codegen(artifacts_per_project=3) as codegen:
        await codegen.generate(project=OTHER_PROJECT, **SCRIPT)
        for number in range(6):
            upstreams.config.metrics[PROJECT] = [metric(f"part_{number}_total")]
            newest = await codegen.generate(**SCRIPT)
        assert (await codegen.artifact(newest.sha256)).content == newest.content
    assert _stored(database, "count(*) FILTER (WHERE project_id = '" + PROJECT + "')") == 3
    assert _stored(database) == 4


async def test_a_pinned_client_outlasts_those_that_are_made_while_its_use_is_not_noted(
    start_codegen: StartCodegen, upstreams: Upstreams, database: Database
) -> None:
    async with start_codegen(artifacts_per_project=3) as codegen:
        pinned = await _generate(codegen, upstreams, "pinned_total")
        await codegen.artifact(pinned)
        with psycopg.connect(database.superuser_dsn) as connection:
            connection.execute(
                "UPDATE codegen.artifacts"
                " SET created_at = created_at - interval '23 hours', used_at = used_at - interval '23 hours'"
            )
        for number in range(6):
            newest = await _generate(codegen, upstreams, f"part_{number}_total")
    async with start_codegen(artifacts_per_project=3) as codegen:
        assert (await codegen.artifact(pinned)).content
        assert (await codegen.artifact(newest)).content
    assert _stored(database) == 3


async def test_a_client_that_was_just_made_is_kept_where_those_in_use_are_as_many_as_may_be(
    start_codegen: StartCodegen, upstreams: Upstreams
) -> None:
    async with start_codegen(artifacts_per_project=2) as codegen:
        used = [await _generate(codegen, upstreams, f"used_{number}_total") for number in range(2)]
        for sha256 in used:
            await codegen.artifact(sha256)
        newest = await _generate(codegen, upstreams, "new_total")
    async with start_codegen(artifacts_per_project=2) as codegen:
        for sha256 in (newest, *used):
            assert (await codegen.artifact(sha256)).content


async def test_without_the_browser_bundle_javascript_waits_and_python_goes_on(
    start_codegen: StartCodegen, tmp_path: Path
) -> None:
    sdk = tmp_path / "sdk"
    shutil.copytree(CHECKOUT / "sdk/python", sdk / "python")
    async with start_codegen(sdk_directory=sdk) as codegen:
        assert (await codegen.generate(language=PYTHON)).content
        with pytest.raises(Unavailable) as away:
            await codegen.generate(**SCRIPT)
        assert away.value.retry_after_seconds
        assert "make build" in away.value.message
        report = await eventually(lambda: _readiness(codegen, "degraded"))
        assert report["checks"]["browser_runtime"]["hard"] is False

        shutil.copytree(CHECKOUT / "sdk/browser/dist", sdk / "browser/dist")
        assert (await codegen.generate(**SCRIPT)).content
        await eventually(lambda: _readiness(codegen, "ready"))


async def test_it_does_not_start_with_a_python_runtime_that_cannot_be_one_file(
    start_codegen: StartCodegen, tmp_path: Path
) -> None:
    shutil.copytree(CHECKOUT / "sdk/python/pulsegate_runtime", tmp_path / "python/pulsegate_runtime")
    with (tmp_path / "python/pulsegate_runtime/log.py").open("a", encoding="utf-8") as module:
        module.write("\n\nclass Batch: ...\n")
    with pytest.raises(RuntimeNotJoinable, match="Batch is defined in"):
        async with start_codegen(sdk_directory=tmp_path):
            pass


async def _readiness(codegen: Codegen, wanted: str) -> dict[str, Any]:
    """The report, once the status is the wanted one; else something false."""
    url = f"http://127.0.0.1:{codegen.ports.operations('codegen')}/health/ready"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        report: dict[str, Any] = await response.json()
    return report if report["status"] == wanted else {}


@pytest.mark.parametrize("failure", [Unavailable("The database is away."), DeadlineExceeded("Too slow.")])
async def test_that_config_is_away_says_nothing_against_codegen_which_has_what_was_generated_before(
    codegen: Codegen, upstreams: Upstreams, failure: PulsegateError
) -> None:
    known = await codegen.generate(**SCRIPT)
    upstreams.config.failure = failure
    with pytest.raises(Unavailable) as refused:
        await codegen.generate(**SCRIPT)
    assert refused.value.details == {"waitingFor": "config"}
    assert not upstream_fault(refused.value)
    assert (await codegen.artifact(known.sha256)).content == known.content


@pytest.fixture
def hanging(upstreams: Upstreams) -> Iterator[Config]:
    """A config that takes calls and answers none."""
    upstreams.config.answers.clear()
    yield upstreams.config
    upstreams.config.answers.set()


async def _waiting_for(generating: Awaitable[Any]) -> str:
    with pytest.raises(Unavailable) as refused:
        await generating
    return str((refused.value.details or {})["waitingFor"])


async def _when_asked(config: Config, generating: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    """The call, once config is asked for it."""
    before, task = config.asked, asyncio.create_task(generating)

    async def asked() -> bool:
        return config.asked > before

    await eventually(asked, what="config is asked")
    return task


async def test_who_names_a_client_by_its_hash_waits_for_nobody_who_waits_for_a_config_that_hangs(
    start_codegen: StartCodegen, upstreams: Upstreams
) -> None:
    async with start_codegen() as earlier:
        known = await earlier.generate(**SCRIPT)
    upstreams.config.answers.clear()
    async with start_codegen() as codegen:  # with nothing in memory
        generating = await _when_asked(upstreams.config, codegen.generate(**SCRIPT))
        async with asyncio.timeout(1):
            assert (await codegen.artifact(known.sha256)).content == known.content
        upstreams.config.answers.set()
        assert await generating == known


async def test_who_waits_for_a_config_that_hangs_is_told_so_before_the_time_is_over(
    codegen: Codegen, hanging: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.context._SECONDS_TO_ANSWER", 2.0)
    monkeypatch.setattr("services.codegen.clients._CONFIG_SECONDS", 10.0)
    generating = await _when_asked(hanging, codegen.generate(**SCRIPT))
    deadline = context.DEADLINE.set(time.monotonic() + 3)
    try:
        others = {"tenant": OTHER_TENANT, "project": OTHER_PROJECT}
        waiting = [_waiting_for(codegen.generate(**SCRIPT)), _waiting_for(codegen.generate(**SCRIPT, **others))]
        assert await asyncio.gather(*waiting) == ["turn", "config"]
    finally:
        context.DEADLINE.reset(deadline)
    assert await _waiting_for(generating) == "config"


async def test_a_config_that_hangs_is_given_a_rest_and_asked_again_when_it_is_back(
    codegen: Codegen, hanging: Config
) -> None:
    tenants = [f"0192f0c1-0000-7000-8000-00000000000{number}" for number in range(3)]
    waiting = [_waiting_for(codegen.generate(**SCRIPT, tenant=tenant)) for tenant in tenants]
    assert await asyncio.gather(*waiting) == ["config"] * 3
    asked, began = hanging.asked, time.monotonic()
    assert await _waiting_for(codegen.generate(**SCRIPT)) == "config"
    assert (hanging.asked, time.monotonic() - began < 1) == (asked, True)
    report = await eventually(lambda: _readiness(codegen, "degraded"))
    assert report["checks"]["config"]["breaker"] == "open"
    hanging.answers.set()

    async def generated() -> bool:
        try:
            return bool((await codegen.generate(**SCRIPT)).content)
        except Unavailable:
            return False

    await eventually(generated, what="config is asked again")


async def test_without_its_database_it_is_unready_and_recovers_by_itself(
    codegen: Codegen, postgres_server: RunningServer[Postgres], upstreams: Upstreams
) -> None:
    known = await codegen.generate(**SCRIPT)
    upstreams.config.metrics[PROJECT] = [metric("new_total")]
    with postgres_server.away():
        with pytest.raises(Unavailable):
            await codegen.generate(**SCRIPT)
        await eventually(lambda: _readiness(codegen, "unready"))
        upstreams.config.metrics[PROJECT] = []
        assert await codegen.generate(**SCRIPT) == known  # from memory

    async def generated() -> bool:
        try:
            return bool((await codegen.generate(**SCRIPT)).content)
        except Unavailable:
            return False

    upstreams.config.metrics[PROJECT] = [metric("new_total")]
    await eventually(generated, within_seconds=60)


@pytest.mark.parametrize(
    "definitions",
    [
        [metric("a-b")],
        [metric("a\nimport os")],
        [metric("a_total", number=1), metric("a_total", number=2)],
        [metric("a_total", labels=[Label(name="x"), Label(name="x")])],
        [metric("a_total", labels=[Label(name="x y")])],
        [metric("a_total", labels=[Label(name="__x")])],
    ],
    ids=["name", "newline", "twice", "label twice", "label name", "label mangled"],
)
async def test_definitions_that_config_should_have_refused_become_no_code(
    codegen: Codegen, upstreams: Upstreams, definitions: Sequence[Metric]
) -> None:
    upstreams.config.metrics[PROJECT] = list(definitions)
    with pytest.raises(Internal):
        await codegen.generate(language=PYTHON)


async def test_a_stranger_without_the_service_token_is_refused(codegen: Codegen) -> None:
    address = f"127.0.0.1:{codegen.ports.grpc('codegen')}"
    async with grpc_client.connected("codegen", address, SERVICE_TOKEN + "x") as channel:
        stranger = Codegen(channel=channel, auth=codegen.auth, ports=codegen.ports)
        with pytest.raises(PulsegateError) as refused:
            await stranger.generate(language=PYTHON)
    assert refused.value.http_status == 401


@pytest.mark.alone
async def test_five_hundred_metrics_are_generated_within_the_bar(codegen: Codegen, upstreams: Upstreams) -> None:
    """Bars: < 200 ms cold, < 5 ms cached on a quiet machine; this one may be busy, so the bounds are generous."""
    upstreams.config.metrics[PROJECT] = _many_metrics(500)
    for options in ({"language": PYTHON}, {"language": JAVASCRIPT}, SCRIPT):
        began = time.perf_counter()
        await codegen.generate(**options)
        cold_ms = (time.perf_counter() - began) * 1000
        cached_ms = []
        for _ in range(20):
            began = time.perf_counter()
            await codegen.generate(**options)
            cached_ms.append((time.perf_counter() - began) * 1000)
        print(f"500 metrics, {options}: cold {cold_ms:.0f} ms, cached {min(cached_ms):.1f} ms at best")
        assert cold_ms < 2000
        assert min(cached_ms) < 50
