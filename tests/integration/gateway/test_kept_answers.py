"""Claims in a real Valkey that is slow, or small: nothing is done twice, and what was not done may be sent again."""

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from chassis.breakers import Breaker
from chassis.errors import Unavailable
from chassis.ids import uuid7
from deploy.local.servers import Valkey
from services.gateway import kept_answers as module
from services.gateway.domain import Bucket, Quota
from services.gateway.kept_answers import Answer, Claim, KeptAnswers, Taken
from services.gateway.redis_limits import RedisLimiter
from services.gateway.shares import HOLDERS
from tests.suite_servers import RunningServer
from tests.waiting import eventually

REQUEST = b"a body"


def kept_answers(redis: Redis) -> KeptAnswers:
    breaker = Breaker("redis-of-a-test", reset_seconds=0.1, least_calls=50)
    return KeptAnswers(redis, breaker, secret="shared", longest_request_seconds=60)


@pytest.fixture
async def redis(valkey_server: RunningServer[Valkey]) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey_server.server.url) as client:
        await client.flushdb()
        yield client


@pytest.fixture
def one(redis: Redis) -> KeptAnswers:
    return kept_answers(redis)


@pytest.fixture
def other(redis: Redis) -> KeptAnswers:
    return kept_answers(redis)


@pytest.fixture
def key() -> bytes:
    return uuid7().bytes


async def is_claimed(answers: KeptAnswers, key: bytes) -> bool:
    return isinstance(await answers.claim(key, REQUEST), Claim)


async def test_a_claim_that_redis_took_too_late_for_its_gateway_is_carried_out_when_it_comes_again(
    one: KeptAnswers, other: KeptAnswers, key: bytes, redis: Redis, valkey_server: RunningServer[Valkey]
) -> None:
    await redis.ping()  # a connection on which the claim waits for Redis
    with valkey_server.paused(), pytest.raises(Unavailable, match=r"Nothing was done"):
        await one.claim(key, REQUEST)

    async def is_taken() -> bool:
        return bool(await redis.keys("answers:*"))

    await eventually(is_taken, what="Redis has taken the claim")
    await eventually(lambda: is_claimed(other, key), what="it may be carried out")
    assert await one.claim(key, REQUEST) is Taken.UNDER_WAY


async def test_what_began_unseen_is_given_up(
    one: KeptAnswers, other: KeptAnswers, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_it = one._begin_it

    async def lost(keys: list[str], arguments: list[Any]) -> None:
        assert [await begin_it(keys, arguments) for _ in range(2)] == [1, 1]  # clients of Redis ask again
        raise TimeoutError

    monkeypatch.setattr(one, "_begin_it", lost)
    with pytest.raises(Unavailable):
        await one.claim(key, REQUEST)
    claim = await other.claim(key, REQUEST)
    assert isinstance(claim, Claim)
    assert await other.settle(claim, Answer(201))
    assert await one.claim(key, REQUEST) == Answer(201)


async def test_a_claim_that_its_own_client_sent_twice_is_one(
    one: KeptAnswers, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_or_find = one._set_or_find

    async def twice(name: str, stored: bytes) -> tuple[bytes | None, int]:
        await set_or_find(name, stored)
        return await set_or_find(name, stored)

    monkeypatch.setattr(one, "_set_or_find", twice)
    assert await is_claimed(one, key)
    assert await one.claim(key, REQUEST) is Taken.UNDER_WAY


async def test_what_did_not_begin_at_once_never_does(
    one: KeptAnswers, other: KeptAnswers, key: bytes, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes it over is the only one who carries it out, however late Redis is asked to begin the first one."""
    begin_it, held = one._begin_it, list[tuple[list[str], list[Any]]]()

    async def late(keys: list[str], arguments: list[Any]) -> None:
        held.append((keys, arguments))
        raise TimeoutError

    async def away(_keys: list[str], _arguments: list[Any]) -> None:
        raise TimeoutError

    monkeypatch.setattr(one, "_begin_it", late)
    monkeypatch.setattr(one, "_give_it_up", away)
    with pytest.raises(Unavailable):
        await one.claim(key, REQUEST)
    assert await other.claim(key, REQUEST) is Taken.UNDER_WAY
    [(keys, arguments)] = held

    async def is_too_old() -> bool:
        return bool(await redis.pttl(keys[0]) < arguments[3])

    await eventually(is_too_old, what="it has not begun in time")
    assert await begin_it(keys, arguments) == 0
    assert await is_claimed(other, key)
    assert await begin_it(keys, arguments) == 0


async def put(answers: KeptAnswers, holder: str, body: bytes, key: bytes = b"") -> Claim | Answer | Taken:
    """A request of this holder, and its answer where it is carried out."""
    HOLDERS.set((holder,))
    claim = await answers.claim(key or uuid7().bytes, REQUEST)
    if isinstance(claim, Claim):
        assert await answers.settle(claim, Answer(201, body=body))
    return claim


async def test_what_one_caller_keeps_pushes_out_neither_answers_nor_limits_of_others(
    one: KeptAnswers, key: bytes, redis: Redis, small_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES_IN_ALL", 600_000)
    await put(one, "neighbour", b"kept", key)
    limit = Bucket(quota=Quota(name="daily", limit=2, period_seconds=86_400), subject="somebody")
    limiter = RedisLimiter(redis, Breaker("limits-of-a-test", reset_seconds=0.1, least_calls=50))
    assert (await limiter.take([limit])).standings[0].remaining == 1
    first = uuid7().bytes
    await put(one, "stranger", b"first", first)
    found = [await put(one, "stranger", os.urandom(3000)) for _ in range(1500)]
    assert found[-1] is Taken.NO_ROOM
    assert await put(one, "neighbour", b"", key) == Answer(201, body=b"kept")
    assert await put(one, "stranger", b"", first) == Answer(201, body=b"first")
    assert (await limiter.take([limit])).standings[0].remaining == 0


@pytest.fixture
async def small_memory(redis: Redis) -> AsyncIterator[None]:
    """Redis forgets what has little time left beyond two megabytes more than it has now."""
    before = await redis.config_get("maxmemory*")
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory-policy", "volatile-ttl")
    await redis.config_set("maxmemory", used + 2_000_000)
    yield
    for name in ("maxmemory", "maxmemory-policy"):
        await redis.config_set(name, before[name] or "")


async def test_however_many_take_their_part_there_is_room_for_who_comes_next(
    one: KeptAnswers, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES_IN_ALL", 300_000)
    for stranger in range(20):
        while await put(one, f"stranger {stranger}", os.urandom(2000)) is not Taken.NO_ROOM:
            pass
    await put(one, "neighbour", b"kept", key)
    assert await put(one, "neighbour", b"", key) == Answer(201, body=b"kept")


def found_no_room() -> float:
    return REGISTRY.get_sample_value("pulsegate_gateway_redis_room_refusals_total", {"purpose": "answers"}) or 0.0


async def test_where_there_is_no_room_for_an_answer_it_is_known_that_there_was_one_and_a_refusal_is_judged_anew(
    one: KeptAnswers, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LEFT_BY_ANSWERS", 1_000_000)
    before = found_no_room()
    await put(one, "somebody", b"not kept", key)
    assert found_no_room() == before + 1
    assert await put(one, "somebody", b"", key) == Answer(201, body=None)
    refused = uuid7().bytes
    claim = await one.claim(refused, REQUEST)
    assert isinstance(claim, Claim)
    assert await one.settle(claim, Answer(409, error=b"{}"))
    assert await is_claimed(one, refused)
