"""One service behind the gateway: how many calls it may have at a time, its breaker, and retries within a budget.

A service that is slow or away must cost the routes of the others nothing: what is too much for it is turned away at
once instead of waiting here.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

import grpc
import tenacity

from chassis import context, grpc_client
from chassis.breakers import NotAsked
from chassis.checked_upstreams import breaker_of
from chassis.errors import WAITING_FOR, Unavailable
from chassis.grpc_client import ServiceChannel
from chassis.mutual_tls import MutualTls
from chassis.tasks import in_background
from services.gateway import metrics
from services.gateway.shares import Places

Request = TypeVar("Request")
Response = TypeVar("Response")
Method: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[Request, Response]"

#: Retries of one call, and how long they wait: full jitter below a bound that doubles.
_RETRIES = 3
_FIRST_WAIT_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 1.0

#: Each call earns a tenth of a retry; so many may be saved up.
_RETRY_PER_CALL = 0.1
_MOST_RETRIES_SAVED = 10.0


class Upstream:
    """One service: `ask` calls it once, `ask_again` and then up to three times more."""

    def __init__(
        self, channel: ServiceChannel, *, reset_seconds: float, timeout_seconds: float, most_calls: int
    ) -> None:
        self.channel = channel
        self.breaker = breaker_of(channel.service, reset_seconds=reset_seconds, timeout_seconds=timeout_seconds)
        self._places = Places(channel.service, most_calls)
        self._timeout_seconds = timeout_seconds
        self._retries_left = _MOST_RETRIES_SAVED

    async def ask(
        self, method: "Method[Request, Response]", request: Request, *, timeout_seconds: float | None = None
    ) -> Response:
        """One call. Raises the service's PulsegateError, or NotAsked at once while its breaker is open or it has as
        many calls as it may have."""
        with self._places.one(), self.breaker.guarded():
            timeout_seconds = timeout_seconds or self._timeout_seconds
            response: Response = await self.channel.call(method, request, timeout_seconds=timeout_seconds)
            return response

    async def ask_again(
        self, method: "Method[Request, Response]", request: Request, *, timeout_seconds: float | None = None
    ) -> Response:
        """A call that may be repeated without harm: it is, where the service was away and the budget allows it.

        What a service waits for that is itself well (`WAITING_FOR`) is not there at once: it is not asked again.
        """
        self._retries_left = min(_MOST_RETRIES_SAVED, self._retries_left + _RETRY_PER_CALL)
        attempts = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(1 + _RETRIES),
            wait=tenacity.wait_random_exponential(multiplier=_FIRST_WAIT_SECONDS, max=_LONGEST_WAIT_SECONDS),
            retry=self._may_repeat,
            reraise=True,
        )
        response: Response = await attempts(self.ask, method, request, timeout_seconds=timeout_seconds)
        return response

    def _may_repeat(self, call: tenacity.RetryCallState) -> bool:
        """Takes a retry out of the budget where there will be one."""
        error = call.outcome.exception() if call.outcome else None
        if call.attempt_number > _RETRIES or self.breaker.is_open:
            return False
        if not isinstance(error, Unavailable) or isinstance(error, NotAsked) or WAITING_FOR in (error.details or {}):
            return False
        if context.remaining_seconds(_LONGEST_WAIT_SECONDS) < _FIRST_WAIT_SECONDS:
            return False
        allowed = self._retries_left >= 1
        metrics.RETRIES.labels(self.channel.service, "tried" if allowed else "refused").inc()
        if allowed:
            self._retries_left -= 1
        return allowed

    async def watch_connection(self) -> None:
        """Lets the breaker try again as soon as the connection is back. Runs until it is cancelled."""
        while True:
            await self.channel.ready()
            self.breaker.try_again()
            await self.channel.grpc_channel.wait_for_state_change(grpc.ChannelConnectivity.READY)


@asynccontextmanager
async def connected(
    service: str,
    address: str,
    service_token: str | Callable[[], str],
    *,
    reset_seconds: float,
    timeout_seconds: float,
    most_calls: int,
    tls: MutualTls | None = None,
    callee: str = "",
) -> AsyncIterator[Upstream]:
    """A service, while open; `tls` and `callee` as in `chassis.grpc_client.connected`."""
    async with grpc_client.connected(service, address, service_token, tls=tls, callee=callee) as channel:
        upstream = Upstream(
            channel, reset_seconds=reset_seconds, timeout_seconds=timeout_seconds, most_calls=most_calls
        )
        async with in_background(upstream.watch_connection()):
            yield upstream
