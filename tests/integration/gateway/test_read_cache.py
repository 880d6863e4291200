"""Reads that are answered out of the cache: of two gateways, with a real Valkey between them."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from chassis.breakers import Breaker
from chassis.errors import NotFound
from chassis.ids import uuid7
from chassis.principals import Principal
from contracts.pulsegate.codegen.v1 import codegen_pb2
from contracts.pulsegate.config.v1 import definitions_pb2
from deploy.local.servers import Valkey
from services.gateway import read_cache, redis_limits
from services.gateway.definition_revisions import DefinitionRevisions
from services.gateway.http_api import definitions as definition_routes
from services.gateway.http_api import generated_code
from services.gateway.read_cache import Life, ReadCache
from tests.integration.gateway.fakes import PROJECT, TENANT
from tests.integration.gateway.running import Answer, Gateway, StartGateway
from tests.moved_clock import MovedClock
from tests.suite_servers import RunningServer
from tests.unit.gateway.no_feed import NoFeed, itself, told
from tests.waiting import eventually, seconds_until

METRICS = f"/api/v1/projects/{PROJECT}/metrics"
ID = "0192f0c1-0000-7000-8000-00000000000f"
OTHER_PROJECT = "0192f0c1-0000-7000-8000-0000000000e1"
OTHER_TENANT = "0192f0c1-0000-7000-8000-0000000000f1"


def script(gateway: Gateway, name: str) -> None:
    """What config says from now on: one definition of that name."""
    spec = definitions_pb2.MetricSpec(name=name, type=definitions_pb2.METRIC_TYPE_COUNTER)
    metric = definitions_pb2.Metric(id=ID, project_id=PROJECT, spec=spec, version=1)
    gateway.config.answers["ListMetrics"] = definitions_pb2.ListMetricsResponse(metrics=[metric])
    gateway.config.answers["CreateMetric"] = definitions_pb2.CreateMetricResponse(metric=metric)


async def read(gateway: Gateway, credential: str) -> Answer:
    return await gateway.call("GET", METRICS, credential=credential)


async def name_read(gateway: Gateway, credential: str) -> str:
    answer = await read(gateway, credential)
    assert answer.status == 200, answer.body
    return str(answer.json["items"][0]["name"])


def asked(*gateways: Gateway) -> int:
    return sum(len(gateway.config.requests("ListMetrics")) for gateway in gateways)


async def is_kept(gateway: Gateway, credential: str) -> bool:
    """Whether the feed speaks, and nothing was changed a moment ago: config is asked once for two reads at most."""
    before = asked(gateway)
    await read(gateway, credential)
    await read(gateway, credential)
    return asked(gateway) <= before + 1


@pytest.fixture
async def two(
    start_gateway: StartGateway, valkey_server: RunningServer[Valkey], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Gateway, Gateway, str]]:
    """Two gateways whose config says the same and that are patient with Redis, and a session."""
    monkeypatch.setattr(read_cache, "_PATIENCE_SECONDS", 5.0)
    monkeypatch.setattr(generated_code, "_NOTING_SECONDS", 5.0)
    with redis.Redis.from_url(valkey_server.server.url) as client:
        client.flushdb()
    async with start_gateway() as one, start_gateway() as other:
        session = one.auth.new_session()
        other.auth._known.update(one.auth._known)
        script(one, "first_total")
        one.config.speaking.set()
        other.config.follow(one.config)
        for gateway in (one, other):
            await eventually(lambda gateway=gateway: is_kept(gateway, session), what="the feed speaks")  # type: ignore[misc]
        yield one, other, session


async def test_what_one_gateway_has_read_is_asked_again_by_none(two: tuple[Gateway, Gateway, str]) -> None:
    one, other, session = two
    before, in_redis = asked(one, other), await one.shown('pulsegate_gateway_cached_reads_total{outcome="redis"}')
    answers = [await read(gateway, session) for gateway in (one, other, one, other)]
    assert {answer.body for answer in answers} == {answers[0].body}
    assert {answer.headers["ETag"] for answer in answers} == {answers[0].headers["ETag"]}
    assert asked(one, other) == before
    assert in_redis >= 1


async def test_what_is_kept_is_not_rendered_again(
    two: tuple[Gateway, Gateway, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for who asks anew, nor to see that a client has it."""
    one, other, session = two
    rendered, render = [], definition_routes._render

    def counted(metric: definitions_pb2.Metric) -> definition_routes.Metric:
        rendered.append(metric.id)
        return render(metric)

    monkeypatch.setattr(definition_routes, "_render", counted)
    one.config.answers["GetMetric"] = definitions_pb2.GetMetricResponse(
        metric=one.config.answers["ListMetrics"].metrics[0]
    )
    for path, times in ((METRICS + "?pageSize=9", 1), (f"{METRICS}/{ID}", 2)):
        answers = [await gateway.call("GET", path, credential=session) for gateway in (one, one, other, other)]
        assert {answer.status for answer in answers} == {200}
        assert len({(answer.body, answer.headers["ETag"]) for answer in answers}) == 1
        known = {"If-None-Match": answers[0].headers["ETag"]}
        again = await one.call("GET", path, credential=session, headers=known)
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", answers[0].headers["ETag"])
        assert rendered == [ID] * times


async def turns_while_rendering(
    gateway: Gateway, session: str, monkeypatch: pytest.MonkeyPatch, *, seconds_each: float
) -> int:
    """How many turns others have on the loop while a page of 20 definitions is rendered."""
    script(gateway, "first_total")
    gateway.config.answers["ListMetrics"].metrics.extend([gateway.config.answers["ListMetrics"].metrics[0]] * 19)
    turns, between, render = 0, list[int](), definition_routes._render

    def noted(metric: definitions_pb2.Metric) -> definition_routes.Metric:
        between.append(turns)
        until = time.monotonic() + seconds_each
        while time.monotonic() < until:
            pass
        return render(metric)

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(definition_routes, "_render", noted)
    waiting = asyncio.create_task(take_turns())
    answer = await gateway.call("GET", METRICS + "?pageSize=20", credential=session)
    waiting.cancel()
    assert (answer.status, len(answer.json["items"])) == (200, 20)
    return len(set(between)) - 1


async def test_while_a_page_of_large_definitions_is_rendered_others_have_their_turn(
    two: tuple[Gateway, Gateway, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _, session = two
    assert await turns_while_rendering(one, session, monkeypatch, seconds_each=0.006) == 19


async def test_a_page_of_small_definitions_does_not_wait_for_others_after_each_of_them(
    two: tuple[Gateway, Gateway, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _, session = two
    assert await turns_while_rendering(one, session, monkeypatch, seconds_each=0) <= 3


async def test_a_gateway_that_starts_finds_what_others_have_read(
    two: tuple[Gateway, Gateway, str], start_gateway: StartGateway
) -> None:
    """Although definitions of its project, and of others, have changed since the first gateway started."""
    one, _, session = two
    one.config.change(OTHER_PROJECT)
    one.config.change()
    before = asked(one)

    async def read_anew() -> bool:
        await read(one, session)
        return asked(one) > before

    await eventually(read_anew, what="the change is told of")
    missed = 'pulsegate_gateway_cached_reads_total{outcome="missed"}'
    before_start = await one.shown(missed)
    async with start_gateway() as started:
        started.auth._known.update(one.auth._known)
        started.config.follow(one.config)
        await eventually(lambda: is_kept(started, session), what="its feed speaks")
        assert await one.shown(missed) == before_start


async def test_a_change_holds_at_once_for_who_made_it_and_everywhere_within_a_second_whoever_made_it(
    two: tuple[Gateway, Gateway, str],
) -> None:
    one, other, session = two
    script(one, "second_total")
    body = {"name": "second_total", "type": "counter", "help": "Seconds."}
    assert (await one.call("POST", METRICS, credential=session, json=body)).status == 201
    assert [await name_read(gateway, session) for gateway in (other, one)] == ["second_total"] * 2
    one.config.change()
    await eventually(lambda: is_kept(one, session), what="the mark of the change has ended")
    script(one, "third_total")
    one.config.change()

    async def seen() -> bool:
        return [await name_read(gateway, session) for gateway in (one, other)] == ["third_total"] * 2

    assert await seconds_until(seen, what="the change is seen") < 1.0


async def test_nobody_reads_what_is_not_theirs(two: tuple[Gateway, Gateway, str]) -> None:
    one, _, session = two
    assert await name_read(one, session) == "first_total"
    blind = one.auth.new_key("secret", scopes=["ingest:write"])
    refused = await read(one, blind)
    assert (refused.status, refused.code) == (403, "INSUFFICIENT_SCOPE")
    stranger = one.auth.new_key("secret", scopes=["config:read"])
    one.auth.move(stranger, OTHER_TENANT)
    script(one, "of_another_tenant_total")
    assert await name_read(one, stranger) == "of_another_tenant_total"
    assert await name_read(one, session) == "first_total"
    one.auth.revoke(session)

    async def is_refused() -> bool:
        return (await read(one, session)).status == 401

    assert await seconds_until(is_refused, what="the session has ended") < 1.0


async def test_many_at_once_ask_once_over_all_gateways(two: tuple[Gateway, Gateway, str]) -> None:
    one, other, session = two

    async def slowly(_request: object) -> definitions_pb2.ListMetricsResponse:
        await asyncio.sleep(0.2)  # the service's own pace
        return definitions_pb2.ListMetricsResponse()

    one.config.answers["ListMetrics"] = slowly
    before = asked(one, other)
    path = METRICS + "?pageSize=7"
    calls = [gateway.call("GET", path, credential=session) for gateway in (one, other) for _ in range(25)]
    assert {answer.status for answer in await asyncio.gather(*calls)} == {200}
    assert asked(one, other) == before + 1


async def test_while_the_feed_or_redis_says_nothing_the_service_is_asked(
    two: tuple[Gateway, Gateway, str], valkey_server: RunningServer[Valkey]
) -> None:
    one, _, session = two
    with valkey_server.away():
        script(one, "without_redis_total")
        assert await name_read(one, session) == "without_redis_total"
    await eventually(lambda: is_kept(one, session), what="Redis is back")
    one.config.speaking.clear()
    script(one, "without_feed_total")

    async def is_asked() -> bool:
        return await name_read(one, session) == "without_feed_total"

    assert await seconds_until(is_asked, what="the feed is silent") < 2.0


def _kept(client: redis.Redis) -> list[bytes]:
    """The names of what is kept of reads."""
    return [key for key in client.scan_iter("reads:*") if len(key) == len("reads:") + 64]


def _bytes_taken(server: Valkey) -> int:
    """What is kept of reads takes so much of Redis, with what it says of each besides."""
    with redis.Redis.from_url(server.url) as client:
        return sum(client.memory_usage(key) for key in _kept(client))


async def _read_much(gateway: Gateway, credential: str) -> None:
    for size in range(1, 60):
        assert (await gateway.call("GET", f"{METRICS}?pageSize={size}", credential=credential)).status == 200


async def test_what_is_read_takes_no_more_of_redis_than_its_part(
    two: tuple[Gateway, Gateway, str], valkey_server: RunningServer[Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits and kept answers are there too, and are what Redis forgets first where its memory is full."""
    one, _, session = two
    monkeypatch.setattr(read_cache, "_MOST_BYTES_IN_REDIS", 12_000)
    await _read_much(one, session)
    assert _bytes_taken(valkey_server.server) <= 2000
    assert await one.shown('pulsegate_gateway_redis_room_refusals_total{purpose="reads"}') > 0
    assert await name_read(one, session) == "first_total"


async def test_no_tenant_uses_up_what_is_kept_for_all(
    two: tuple[Gateway, Gateway, str], valkey_server: RunningServer[Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _, session = two
    monkeypatch.setattr(read_cache, "_MOST_BYTES_IN_REDIS", 12_000)
    stranger = one.auth.new_key("secret", scopes=["config:read"])
    one.auth.move(stranger, OTHER_TENANT)
    taken = []
    for credential in (session, stranger):
        await _read_much(one, credential)
        taken.append(_bytes_taken(valkey_server.server))
    assert 1000 < taken[0] <= 2000
    assert taken[0] + 1000 < taken[1] <= 4000


async def test_scripts_that_anybody_reads_use_up_nothing_of_what_is_kept_for_their_tenant(
    two: tuple[Gateway, Gateway, str], valkey_server: RunningServer[Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _, session = two
    monkeypatch.setattr(read_cache, "_MOST_BYTES_IN_REDIS", 60_000)
    one.codegen.answers["GetArtifact"] = codegen_pb2.GetArtifactResponse(
        content=b"client", content_type="text/javascript"
    )
    key = one.auth.new_key()
    for number in range(20):
        assert (await one.call("GET", f"/sdk/v1/{key}.{number:064x}.js")).status == 200
    assert await one.shown('pulsegate_gateway_redis_room_refusals_total{purpose="reads"}') > 0
    before = _bytes_taken(valkey_server.server)
    await _read_much(one, session)
    assert _bytes_taken(valkey_server.server) > before + 3000


async def test_what_is_not_there_makes_nobody_wait(two: tuple[Gateway, Gateway, str]) -> None:
    """Neither those who ask after the first one, nor those who ask another gateway meanwhile."""
    one, other, session = two

    async def slowly(_request: object) -> definitions_pb2.GetMetricResponse:
        await asyncio.sleep(0.1)  # the service's own pace
        raise NotFound("There is no such metric.")

    one.config.answers["GetMetric"] = slowly
    began = time.monotonic()
    for _ in range(3):
        calls = [gateway.call("GET", f"{METRICS}/{ID}", credential=session) for gateway in (one, other)]
        assert {answer.status for answer in await asyncio.gather(*calls)} == {404}
    assert time.monotonic() - began < 2.0


def revisions_of(clock: MovedClock) -> DefinitionRevisions:
    """Whose feed has spoken just now."""
    revisions = DefinitionRevisions(NoFeed(), clock, itself)
    revisions.apply(told(1))
    return revisions


def reader_of_new_project() -> Principal:
    return Principal(
        subject="u", kind="user", scopes=frozenset(), expires_at=0, tenant_id=TENANT, project_id=str(uuid7())
    )


async def test_whether_projects_were_changed_is_asked_for_many_reads_together(
    valkey_server: RunningServer[Valkey],
) -> None:
    clock = MovedClock(time.time())
    revisions = revisions_of(clock)
    readers = [reader_of_new_project() for _ in range(2)]

    with redis.Redis.from_url(valkey_server.server.url) as client:

        def asked() -> int:
            return int(client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"])

        async with redis_limits.connected(valkey_server.server.url) as connected:
            cache = ReadCache(connected, Breaker("redis-reads"), revisions, clock, secret="shared")
            for reader in readers:
                await cache.of(reader, b"question", Life.LIST, _content)
            before = asked()
            reads = [cache.of(reader, b"question", Life.LIST, _content) for reader in readers for _ in range(30)]
            assert set(await asyncio.gather(*reads)) == {b"content"}
            assert asked() - before <= 2
            marked, other = readers
            await cache.changed(marked.project_id)
            outcomes = [await cache.of(reader, b"question", Life.LIST, _anew) for reader in (marked, other)]
            assert outcomes == [b"read anew", b"content"]


async def test_a_change_through_a_gateway_of_another_version_holds_for_whoever_reads_after_it(
    valkey_server: RunningServer[Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the two keep apart what they have read."""
    clock = MovedClock(time.time())
    revisions, reader = revisions_of(clock), reader_of_new_project()
    async with redis_limits.connected(valkey_server.server.url) as connected:

        def started() -> ReadCache:
            return ReadCache(connected, Breaker("redis-reads"), revisions, clock, secret="shared")

        new = started()
        monkeypatch.setattr(read_cache, "_FORMAT", "kept reads of before")
        old = started()
        assert await new.of(reader, b"question", Life.LIST, _content) == b"content"
        assert await old.of(reader, b"question", Life.LIST, _anew) == b"read anew"
        assert await new.of(reader, b"question", Life.LIST, _anew) == b"content"
        await old.changed(reader.project_id)
        assert await new.of(reader, b"question", Life.LIST, _anew) == b"read anew"


async def _content() -> bytes:
    return b"content"


async def _anew() -> bytes:
    return b"read anew"


_LASTING = read_cache._Entry(1, 1 << 60, b"")


async def test_what_is_small_takes_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_cache, "_MOST_BYTES", 10 * 400)
    memory = read_cache._Memory(MovedClock())
    for number in range(100):
        memory.put(f"reads:{number}", "one", _LASTING)
    assert [number for number in range(100) if memory.get(f"reads:{number}")] == list(range(90, 100))


async def test_what_one_tenant_reads_pushes_nothing_of_another_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_cache, "_MOST_BYTES", 10 * 400)
    memory = read_cache._Memory(MovedClock())
    memory.put("another's", "another", _LASTING)
    for number in range(100):
        memory.put(f"reads:{number}", "one", _LASTING)
        assert memory.get("reads:0")  # in use all the time
    assert memory.get("another's")
    assert [number for number in range(100) if memory.get(f"reads:{number}")] == [0, *range(92, 100)]


async def test_what_has_ended_leaves_memory_before_what_others_have_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little those had who ask no more."""
    monkeypatch.setattr(read_cache, "_MOST_BYTES", 10 * 400)
    clock = MovedClock()
    memory = read_cache._Memory(clock)
    for number in range(8):
        memory.put(f"gone:{number}", f"gone {number}", read_cache._Entry(1, clock.now_ms() + 1000, b""))
    clock.seconds += 2
    for number in range(10):
        memory.put(f"reads:{number}", "one", _LASTING)
    assert all(memory.get(f"reads:{number}") for number in range(10))
    assert not any(memory.get(f"gone:{number}") for number in range(8))


async def test_generated_code_is_kept_for_each_key(two: tuple[Gateway, Gateway, str]) -> None:
    one, _, _ = two
    one.codegen.answers["GenerateClient"] = codegen_pb2.GenerateClientResponse(
        content=b"client", content_type="text/javascript", sha256="0" * 64
    )
    keys = [one.auth.new_key() for _ in range(2)]
    for key in (*keys, *keys):
        assert (await one.call("GET", f"/sdk/v1/{key}.js")).body == b"client"
    embedded = [request.publishable_key for request in one.codegen.requests("GenerateClient")]
    assert embedded == keys


async def test_that_a_pinned_script_is_in_use_is_told_once_in_a_while(two: tuple[Gateway, Gateway, str]) -> None:
    one, other, _ = two
    one.codegen.answers["GetArtifact"] = codegen_pb2.GetArtifactResponse(content=b"client")
    key, sha256 = one.auth.new_key(), "2" * 64
    other.auth._known.update(one.auth._known)
    for gateway in (one, one, other, other):
        answer = await gateway.call("GET", f"/sdk/v1/{key}.{sha256}.js", headers={"If-None-Match": f'"{sha256}"'})
        assert answer.status == 304
    assert [asked.sha256 for asked in one.codegen.requests("GetArtifact")] == [sha256]
    assert other.codegen.requests("GetArtifact") == []


async def test_who_has_a_pinned_script_is_told_so_at_once_while_codegen_hangs_which_hears_of_the_use_once(
    two: tuple[Gateway, Gateway, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _, _ = two
    monkeypatch.setattr(generated_code, "_NOTING_SECONDS", 1.0)
    answering = asyncio.Event()

    async def late(_request: object) -> codegen_pb2.GetArtifactResponse:
        await answering.wait()
        return codegen_pb2.GetArtifactResponse(content=b"client")

    one.codegen.answers["GetArtifact"] = late
    path, known = f"/sdk/v1/{one.auth.new_key()}.{'3' * 64}.js", {"If-None-Match": f'"{"3" * 64}"'}
    began = time.monotonic()
    assert (await one.call("GET", path, headers=known)).status == 304
    assert time.monotonic() - began < 2.0
    answering.set()
    assert (await one.call("GET", path, headers=known)).status == 304
    assert len(one.codegen.requests("GetArtifact")) == 1


async def test_of_scripts_that_are_gone_or_made_up_nothing_is_kept(
    two: tuple[Gateway, Gateway, str], valkey_server: RunningServer[Valkey]
) -> None:
    """Whoever has seen a page has its key, and could fill what its tenant has for reads."""
    one, _, _ = two
    one.codegen.answers["GetArtifact"] = NotFound("Never generated.")
    key = one.auth.new_key()
    with redis.Redis.from_url(valkey_server.server.url) as client:
        kept_before = _kept(client)
    for number in range(10):
        path = f"/sdk/v1/{key}.{number:064x}.js"
        assert (await one.call("GET", path, headers={"If-None-Match": "*"})).status == 304
        assert (await one.call("GET", path)).status == 404
    with redis.Redis.from_url(valkey_server.server.url) as client:
        assert _kept(client) == kept_before


@pytest.mark.parametrize(("language", "status", "hashed"), [("javascript", 200, 1), ("x-python", 404, 0)])
async def test_of_a_pinned_script_everything_is_seen_once(
    two: tuple[Gateway, Gateway, str], monkeypatch: pytest.MonkeyPatch, language: str, status: int, hashed: int
) -> None:
    """Its hash for a script tag, and that it is none."""
    one, other, _ = two
    hashes, sha384 = [], hashlib.sha384

    def counted(content: bytes) -> Any:
        hashes.append(content)
        return sha384(content)

    monkeypatch.setattr(hashlib, "sha384", counted)
    one.codegen.answers["GetArtifact"] = codegen_pb2.GetArtifactResponse(
        content=b"client", content_type=f"text/{language}; charset=utf-8"
    )
    key = one.auth.new_key()
    other.auth._known.update(one.auth._known)
    path = f"/sdk/v1/{key}.{'1' * 64}.js"
    answers = [await gateway.call("GET", path) for gateway in (one, one, other, other)]
    assert {answer.status for answer in answers} == {status}
    assert len({answer.headers.get("X-Content-Integrity") for answer in answers}) == 1
    assert hashes == [b"client"] * hashed
    assert len(one.codegen.requests("GetArtifact")) == 1
    assert other.codegen.requests("GetArtifact") == []
