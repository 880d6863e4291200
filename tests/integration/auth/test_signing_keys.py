"""The keys that sign tokens, and their rotation."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import jwt
import pytest
import pytest_asyncio

from chassis import postgres
from chassis.errors import Unavailable
from services.auth.app import key_ring
from services.auth.master_key import MasterKey, WrongMasterKey
from services.auth.settings import Settings
from services.auth.signing_keys import PUBLISHED_AHEAD, KeyRing
from tests.integration.auth.client import running_auth
from tests.integration.auth.clocks import MovableClock
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PERIOD = timedelta(days=30)


@pytest_asyncio.fixture(loop_scope="module")
async def pool(settings: Settings) -> AsyncIterator[postgres.Database]:
    async with postgres.connected(settings.dsn) as pool:
        yield pool


@pytest.fixture
def rings(settings: Settings, pool: postgres.Database, clock: MovableClock) -> list[KeyRing]:
    """Those of three replicas."""
    return [key_ring(settings, pool, MasterKey(settings.master_key), clock) for _ in range(3)]


async def refresh(rings: list[KeyRing]) -> None:
    await asyncio.gather(*(ring.refresh() for ring in rings))


async def published(ring: KeyRing) -> list[str]:
    return [key["kid"] for key in json.loads(await ring.jwks())["keys"]]


async def agreed(rings: list[KeyRing]) -> tuple[str, list[str]]:
    """The key that signs and those that are published, on which all replicas agree."""
    signing = {ring.signer().id for ring in rings}
    sets = [await published(ring) for ring in rings]
    assert len(signing) == 1
    assert all(one == sets[0] for one in sets)
    return signing.pop(), sets[0]


async def test_replicas_that_start_at_once_make_one_key(rings: list[KeyRing]) -> None:
    await refresh(rings)

    signing, keys = await agreed(rings)
    assert keys == [signing]


async def test_a_key_is_published_before_it_signs_and_after_it_has_signed(
    rings: list[KeyRing], clock: MovableClock
) -> None:
    await refresh(rings)
    first, _ = await agreed(rings)

    await clock.advance(PERIOD - PUBLISHED_AHEAD)
    await refresh(rings)
    signing, [_, second] = await agreed(rings)
    assert signing == first

    await clock.advance(PUBLISHED_AHEAD)
    signing, keys = await agreed(rings)
    assert (signing, keys) == (second, [first, second])

    await clock.advance(timedelta(seconds=900))
    await refresh(rings)
    assert await agreed(rings) == (second, [first, second])

    await clock.advance(timedelta(minutes=6))
    await refresh(rings)
    assert await agreed(rings) == (second, [second])


async def test_keys_go_on_rotating_over_a_year(rings: list[KeyRing], clock: MovableClock) -> None:
    await refresh(rings)
    signers = []
    for _ in range(365):
        await clock.advance(timedelta(days=1))
        await refresh(rings[:1])
        signers.append(rings[0].signer().id)
        assert len(await published(rings[0])) <= 2

    assert len(set(signers)) == 13


async def test_a_ring_that_slept_through_its_period_signs_until_the_next_key_is_known(
    rings: list[KeyRing], clock: MovableClock
) -> None:
    await refresh(rings)
    first, _ = await agreed(rings)

    await clock.advance(PERIOD * 3)
    await refresh(rings)

    signing, keys = await agreed(rings)
    assert (signing, len(keys)) == (first, 2)


async def test_a_replica_whose_clock_is_behind_signs_with_the_first_key(
    settings: Settings, pool: postgres.Database, clock: MovableClock
) -> None:
    await clock.advance(timedelta(seconds=2))
    ahead = key_ring(settings, pool, MasterKey(settings.master_key), clock)
    behind = key_ring(settings, pool, MasterKey(settings.master_key), MovableClock())

    await ahead.refresh()
    await behind.refresh()

    assert behind.signer().id == ahead.signer().id


async def test_before_the_keys_are_read_nothing_is_signed_or_verified(rings: list[KeyRing]) -> None:
    for attempt in (rings[0].jwks(), rings[0].probe()):
        with pytest.raises(Unavailable):
            await attempt
    with pytest.raises(Unavailable):
        rings[0].public_key("any")


async def test_keys_of_another_master_key_cannot_be_read(
    settings: Settings, pool: postgres.Database, rings: list[KeyRing], clock: MovableClock
) -> None:
    await refresh(rings)
    other = key_ring(settings, pool, MasterKey(bytes(32)), clock)

    with pytest.raises(WrongMasterKey):
        await other.refresh()
    async with other.keeping_fresh():
        await eventually(lambda: says(other, "encrypted under another PULSEGATE_AUTH_MASTER_KEY"))


async def says(ring: KeyRing, reason: str) -> bool:
    try:
        await ring.probe()
    except Unavailable as unavailable:
        return reason in unavailable.message
    return False


async def test_published_keys_hold_no_private_part(rings: list[KeyRing]) -> None:
    await refresh(rings)

    [key] = json.loads(await rings[0].jwks())["keys"]

    assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}
    assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("OKP", "Ed25519", "sig", "EdDSA")


async def test_access_tokens_stay_valid_over_a_rotation(settings: Settings, clock: MovableClock) -> None:
    async with running_auth(replace(settings, signing_key_days=1), clock) as auth:
        await clock.advance(timedelta(hours=23, minutes=1))

        async def two_keys() -> bool:
            return len(json.loads(await auth.signing_keys())["keys"]) == 2

        await eventually(two_keys)
        await clock.advance(timedelta(minutes=54))
        ada = await auth.sign_up()
        await clock.advance(timedelta(minutes=10))
        fresh = await auth.sign_up()

        kids = {jwt.get_unverified_header(person.access_token)["kid"] for person in (ada, fresh)}
        assert len(kids) == 2
        for person in (ada, fresh):
            assert (await auth.authenticate(access_token=person.access_token)).principal
