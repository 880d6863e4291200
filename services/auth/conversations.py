"""What providers are asked while somebody waits: for so long, so many at a time, and whatever they say."""

import asyncio
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from chassis import context, logs
from chassis.errors import PulsegateError
from chassis.shares import Shares
from services.auth.errors import ProviderAway, SignOnFailed, TooManySignOns
from services.auth.identity_providers import IdentityProvider

log = logs.get(__name__)

#: Who waits without an end of their own waits no longer.
_LONGEST_SECONDS = 11.5
_MOST_AT_ONCE = 64

#: Whose provider is asked; empty outside of conversations.
ASKED_FOR: ContextVar[str] = ContextVar("asked_for", default="")


class Conversations:
    """With all providers, in this process; tenants share them."""

    def __init__(self) -> None:
        self._shares = Shares(_MOST_AT_ONCE)

    @asynccontextmanager
    async def of(self, provider: IdentityProvider) -> AsyncIterator[None]:
        """A block that does nothing but listen to a provider.

        Raises TooManySignOns; ProviderAway where the time is over; SignOnFailed for what nobody has foreseen, since
        tenants choose who their provider is.
        """
        holders = (provider.tenant_id,)
        if not self._shares.take(holders):
            raise TooManySignOns
        asked_for = ASKED_FOR.set(provider.tenant_id)
        try:
            # In what it leaves the tenant is told of a refusal, and then whoever asks.
            async with asyncio.timeout(context.waiting_seconds(_LONGEST_SECONDS)):
                yield
        except PulsegateError:
            raise
        except TimeoutError as error:
            raise ProviderAway(provider.settings.known_by, "no time was left for its answer") from error
        except Exception as error:
            log.warning("identity provider says what nobody has foreseen", provider_id=provider.id, exc_info=True)
            raise SignOnFailed("it says what cannot be read") from error
        finally:
            _let_go(sys.exception())
            ASKED_FOR.reset(asked_for)
            self._shares.give_back(holders)


def _let_go(refusal: BaseException | None) -> None:
    """What was read of the provider: it would be held, in the frames that the refusal came through, for as long as the
    refusal is told of, and that is not so many at a time."""
    while refusal is not None:
        traceback.clear_frames(refusal.__traceback__)
        refusal = refusal.__cause__ or refusal.__context__
