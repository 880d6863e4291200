"""Refresh tokens and the end of sessions."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import psycopg
import pytest
import pytest_asyncio

from chassis.errors import Unauthenticated
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from contracts.pulsegate.auth.v1 import own_account_pb2
from services.auth.settings import Settings
from tests.integration.auth.client import PASSWORD, AuthClient, running_auth
from tests.integration.auth.clocks import MovableClock
from tests.integration.auth.locks import until_somebody_waits_for_a_lock
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def timed(settings: Settings, clock: MovableClock) -> AsyncIterator[AuthClient]:
    async with running_auth(settings, clock) as client:
        yield client


async def refresh(auth: AuthClient, token: str) -> pb.Session:
    answer: pb.RefreshResponse = await auth.account("Refresh", pb.RefreshRequest(refresh_token=token))
    return answer.session


async def is_over(auth: AuthClient, access_token: str) -> bool:
    try:
        await auth.authenticate(access_token=access_token)
    except Unauthenticated as refused:
        return refused.code == "UNAUTHENTICATED"
    return False


async def test_refreshing_gives_new_tokens_of_the_same_session(auth: AuthClient) -> None:
    ada = await auth.sign_up()

    fresh = await refresh(auth, ada.refresh_token)

    assert fresh.refresh_token.startswith("rt_")
    assert fresh.refresh_token != ada.refresh_token
    assert fresh.expires_in == 900
    assert (await auth.authenticate(access_token=fresh.access_token)).principal


async def test_fifty_refreshes_at_once_all_get_the_same_successor(
    settings: Settings, replica_settings: Settings
) -> None:
    async with running_auth(settings) as auth, running_auth(replica_settings) as replica:
        ada = await auth.sign_up()
        sessions = await asyncio.gather(*(refresh((auth, replica)[n % 2], ada.refresh_token) for n in range(50)))

        assert len({session.refresh_token for session in sessions}) == 1
        assert (await refresh(replica, sessions[0].refresh_token)).refresh_token


async def test_a_lost_answer_may_be_asked_for_again_within_ten_seconds(timed: AuthClient, clock: MovableClock) -> None:
    ada = await timed.sign_up()
    clock.stop()
    lost = await refresh(timed, ada.refresh_token)

    await clock.advance(timedelta(seconds=9))
    again = await refresh(timed, ada.refresh_token)

    assert again.refresh_token == lost.refresh_token
    assert not await is_over(timed, again.access_token)


async def test_reuse_after_the_grace_revokes_the_whole_family(timed: AuthClient, clock: MovableClock) -> None:
    ada = await timed.sign_up()
    second = await refresh(timed, ada.refresh_token)
    third = await refresh(timed, second.refresh_token)

    await clock.advance(timedelta(seconds=11))
    with pytest.raises(Unauthenticated):
        await refresh(timed, ada.refresh_token)

    for token in (ada.refresh_token, second.refresh_token, third.refresh_token):
        with pytest.raises(Unauthenticated):
            await refresh(timed, token)
    assert await is_over(timed, third.access_token)


async def test_reuse_is_announced_to_those_who_watch(timed: AuthClient, clock: MovableClock) -> None:
    ada = await timed.sign_up()
    await refresh(timed, ada.refresh_token)
    await clock.advance(timedelta(seconds=11))
    stream = timed.watch()
    await anext(stream)

    with pytest.raises(Unauthenticated):
        await refresh(timed, ada.refresh_token)
    changed = await anext(beat.changed_ids async for beat in stream if beat.changed_ids)

    assert len(changed) == 1
    assert changed[0] not in (ada.user_id, ada.tenant_id)


async def test_another_session_of_the_person_goes_on(timed: AuthClient, clock: MovableClock) -> None:
    ada = await timed.sign_up()
    other = await timed.account("SignIn", pb.SignInRequest(email=ada.email, password=PASSWORD))

    await timed.account("SignOut", pb.SignOutRequest(refresh_token=ada.refresh_token))

    assert await is_over(timed, ada.access_token)
    assert not await is_over(timed, other.session.access_token)


async def test_a_refresh_token_lives_seven_days_from_its_making(timed: AuthClient, clock: MovableClock) -> None:
    ada = await timed.sign_up()
    await clock.advance(timedelta(days=6, hours=23))
    fresh = await refresh(timed, ada.refresh_token)
    await clock.advance(timedelta(days=6, hours=23))
    newest = await refresh(timed, fresh.refresh_token)

    await clock.advance(timedelta(days=7, seconds=1))

    with pytest.raises(Unauthenticated):
        await refresh(timed, newest.refresh_token)


async def test_a_session_that_nothing_renews_any_more_ends_with_all_others(
    settings: Settings, clock: MovableClock
) -> None:
    async with running_auth(settings, clock, refresh_token_days=1, access_token_seconds=2 * 86_400) as auth:
        ada = await auth.sign_up()
        other = (await auth.account("SignIn", pb.SignInRequest(email=ada.email, password=PASSWORD))).session
        await clock.advance(timedelta(days=1, hours=1))
        assert not await is_over(auth, other.access_token)

        await auth.own("RevokeOtherSessions", own_account_pb2.RevokeOtherSessionsRequest(), await auth.principal(ada))

        assert await is_over(auth, other.access_token)
        assert not await is_over(auth, ada.access_token)


async def test_signing_out_ends_the_session_at_once(auth: AuthClient) -> None:
    ada = await auth.sign_up()

    await auth.account("SignOut", pb.SignOutRequest(refresh_token=ada.refresh_token))

    assert await is_over(auth, ada.access_token)
    with pytest.raises(Unauthenticated):
        await refresh(auth, ada.refresh_token)


async def test_signing_out_twice_or_with_an_unknown_token_is_no_error(auth: AuthClient) -> None:
    ada = await auth.sign_up()

    for token in (ada.refresh_token, ada.refresh_token, "rt_unknown", ""):
        await auth.account("SignOut", pb.SignOutRequest(refresh_token=token))


@pytest.mark.parametrize("token", ["", "rt_", "rt_unknown", "\0", "a" * 10_000])
async def test_an_unknown_refresh_token_is_refused(auth: AuthClient, token: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await refresh(auth, token)

    assert refused.value.code == "UNAUTHENTICATED"


async def test_a_session_deleted_while_its_token_is_judged_is_over(auth: AuthClient, module_database: Database) -> None:
    ada = await auth.sign_up()

    with psycopg.connect(module_database.superuser_dsn) as deleting:
        deleting.execute("DELETE FROM auth.sessions WHERE user_id = %s", (ada.user_id,))
        waiting = asyncio.create_task(refresh(auth, ada.refresh_token))
        await until_somebody_waits_for_a_lock(module_database)
        deleting.commit()

        with pytest.raises(Unauthenticated):
            await waiting
