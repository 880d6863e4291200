"""Conversations with identity providers: how many at a time, for how long, and what becomes of nonsense."""

import asyncio
import time
import weakref
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from chassis import context
from services.auth.conversations import Conversations
from services.auth.domain import TenantId
from services.auth.errors import InvalidLogin, ProviderAway, SignOnFailed, TooManySignOns
from services.auth.identity_providers import AdmissionRules, IdentityProvider, ProviderId
from services.auth.provider_settings import OidcSettings

NOW = datetime.now(UTC)


def provider_of(tenant_id: str) -> IdentityProvider:
    return IdentityProvider(
        id=ProviderId("1"),
        tenant_id=TenantId(tenant_id),
        name="Corporate",
        enabled=True,
        admission=AdmissionRules(email_domains=(), default_role=None, role_claim="", role_mappings=()),
        settings=OidcSettings(issuer="https://idp.example.com", client_id="pulsegate", scopes=(), trusts_email=False),
        sealed_secret=None,
        created_at=NOW,
        updated_at=NOW,
    )


async def test_a_tenant_takes_a_quarter_of_the_room_at_most_and_ten_leave_some_for_others() -> None:
    conversations, taken = Conversations(), list[int]()
    async with AsyncExitStack() as under_way:
        for tenant_id in "abcdefghij":
            taken.append(0)
            with suppress(TooManySignOns):
                for _ in range(64):
                    await under_way.enter_async_context(conversations.of(provider_of(tenant_id)))
                    taken[-1] += 1
        assert (taken[0], sum(taken) < 56) == (16, True)
        async with conversations.of(provider_of("next")):
            pass
    async with AsyncExitStack() as under_way:
        for _ in range(16):
            await under_way.enter_async_context(conversations.of(provider_of("next")))


async def test_a_provider_is_waited_for_no_longer_than_whoever_asks_waits_for_us() -> None:
    began = time.monotonic()
    waits_until = context.DEADLINE.set(began + 0.6)
    try:
        with pytest.raises(ProviderAway):
            async with Conversations().of(provider_of("a")):
                await asyncio.Event().wait()
    finally:
        context.DEADLINE.reset(waits_until)
    assert time.monotonic() - began < 0.6


async def test_what_nobody_has_foreseen_signs_nobody_in() -> None:
    conversations = Conversations()
    for unforeseen in (AttributeError("verify"), OverflowError("date"), RecursionError(), KeyError("sub")):
        with pytest.raises(SignOnFailed):
            async with conversations.of(provider_of("a")):
                raise unforeseen
    with pytest.raises(InvalidLogin):
        async with conversations.of(provider_of("a")):
            raise InvalidLogin


class _Read:
    """What was read of a provider."""


@pytest.mark.parametrize("refusal", [InvalidLogin(), KeyError("sub"), TimeoutError()])
async def test_what_was_read_of_a_provider_is_not_held_while_its_refusal_is_told(refusal: Exception) -> None:
    seen: list[weakref.ref[_Read]] = []

    def listen() -> None:
        read = _Read()
        seen.append(weakref.ref(read))
        try:
            raise ValueError
        except ValueError as error:
            raise refusal from error

    # Logged without the values of variables, as services do.
    with capture_logs(), pytest.raises((InvalidLogin, SignOnFailed, ProviderAway)) as told:
        async with Conversations().of(provider_of("a")):
            listen()
    assert told.value.__traceback__
    assert [each() for each in seen] == [None]
