"""gRPC channels to other services: identity and trace passed on, a deadline on every call, errors raised again."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import msgspec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.trace import SpanKind

from chassis import context, metrics, tracing
from chassis.errors import (
    ERROR_METADATA_KEY,
    MOST_WIRE_BYTES,
    AnswerTooLarge,
    DeadlineExceeded,
    Internal,
    PulsegateError,
    Unavailable,
    from_wire,
)
from chassis.grpc_metadata import CORRELATION_ID_KEY, PRINCIPAL_KEY, SERVICE_TOKEN_KEY
from chassis.mutual_tls import MutualTls
from chassis.renewed_channel import RenewedChannel
from chassis.service_tokens import ServiceToken
from chassis.tasks import heed_cancellation

_OPTIONS = [
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_metadata_size", 2 * MOST_WIRE_BYTES),
    ("grpc.enable_retries", 0),
    # Services are reached directly: a proxy that the environment names would be shown the service's token.
    ("grpc.enable_http_proxy", 0),
]

#: A health check is given up after this.
_PROBE_SECONDS = 1.5

#: How long a call waits before it is told that the service is away.
_RETRY_AFTER_SECONDS = 1.0


#: How gRPC says that a call did not leave this process, and that its answer was not let in; tests hold it to that.
_NOT_SENT = "connections to all backends failing"
_TOO_LARGE = "CLIENT: Received message larger than max"


class NotReached(Unavailable):
    """A call that was never sent, because there was no connection: nothing was done."""


class Silent(Unavailable):
    """A health check that got no answer."""


class ServiceChannel:
    """A channel to one service.

    `await channel.call(stub.Method, request)` raises the callee's `PulsegateError`, `Unavailable` where it is away,
    `DeadlineExceeded` where it was too slow, `AnswerTooLarge` where its answer does not fit into a message.
    """

    def __init__(
        self,
        service: str,
        grpc_channel: grpc.aio.Channel,
        service_token: ServiceToken,
        default_timeout_seconds: float = 5.0,
    ) -> None:
        self.service = service
        self.grpc_channel = grpc_channel
        self._service_token = service_token
        self._default_timeout_seconds = default_timeout_seconds
        self._health: Any = health_pb2_grpc.HealthStub(self.grpc_channel)

    async def call(self, method: Any, request: Any, *, timeout_seconds: float | None = None) -> Any:
        """One unary call, within `timeout_seconds` and the deadline of the call being served."""
        name = method._method.decode() if isinstance(method._method, bytes) else str(method._method)
        timeout = context.remaining_seconds(timeout_seconds or self._default_timeout_seconds)
        if timeout <= 0:
            raise DeadlineExceeded(f"No time was left to ask {self.service}.")
        began, status = time.monotonic(), grpc.StatusCode.OK
        try:
            with tracing.span(name, kind=SpanKind.CLIENT):
                return await method(request, timeout=timeout, metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            status = error.code()
            raise self.told_by(error) from error
        finally:
            metrics.GRPC_CALLED.labels(name, status.name).observe(time.monotonic() - began)

    async def stream(self, method: Any, request: Any) -> AsyncIterator[Any]:
        """The responses of a streaming call, without a deadline; closing it ends the call. Raises like `call`."""
        responses = method(request, metadata=self._metadata())
        try:
            async for response in responses:
                yield response
        except grpc.aio.AioRpcError as error:
            raise self.told_by(error) from error
        except asyncio.CancelledError as error:
            heed_cancellation()
            # Nobody has cancelled this task: the connection is closed, new certificates have taken its place.
            raise self._away() from error
        finally:
            responses.cancel()

    def conversation(self, method: Any) -> Any:
        """A call in which both sides stream, without a deadline. It is the caller's, to read, write and cancel.

        What reading it raises, `told_by` turns into the error that `call` would raise.
        """
        return method(metadata=self._metadata())

    async def ready(self) -> None:
        """Returns when there is a connection to at least one server of the service."""
        state = self.grpc_channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            await self.grpc_channel.wait_for_state_change(state)
            state = self.grpc_channel.get_state(try_to_connect=True)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        carrier = {SERVICE_TOKEN_KEY: self._service_token.sent}
        if correlation_id := context.CORRELATION_ID.get():
            carrier[CORRELATION_ID_KEY] = correlation_id
        if principal := context.PRINCIPAL_TOKEN.get():
            carrier[PRINCIPAL_KEY] = principal
        tracing.inject(carrier)
        return tuple(carrier.items())

    def told_by(self, error: grpc.aio.AioRpcError) -> PulsegateError:
        """What an error of gRPC says."""
        trailing = {str(key): value for key, value in error.trailing_metadata() or ()}
        encoded = trailing.get(ERROR_METADATA_KEY)
        if isinstance(encoded, bytes):
            try:
                return from_wire(encoded)
            except msgspec.DecodeError:
                return Internal(f"{self.service} answered an error that cannot be read.")
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{self.service} did not answer in time.")
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return self._away(NotReached if (error.details() or "").startswith(_NOT_SENT) else Unavailable)
        if _TOO_LARGE in (error.details() or ""):
            return AnswerTooLarge(f"What {self.service} answered is larger than it may be.")
        return Internal(f"{self.service} failed.")

    def _away(self, kind: type[Unavailable] = Unavailable) -> Unavailable:
        return kind(f"{self.service} is away.", retry_after_seconds=_RETRY_AFTER_SECONDS)

    async def probe(self) -> None:
        """A health check: returns where the service answers that it serves.

        Raises Silent where it does not answer, Unavailable where it answers that it does not serve.
        """
        try:
            request = health_pb2.HealthCheckRequest()
            answer = await self._health.Check(request, timeout=_PROBE_SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return  # it answers
            raise Silent(f"{self.service} does not answer") from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable(f"{self.service} is not ready")


@asynccontextmanager
async def connected(
    service: str,
    address: str,
    service_token: str | Callable[[], str],
    *,
    tls: MutualTls | None = None,
    callee: str = "",
) -> AsyncIterator[ServiceChannel]:
    """A channel that is closed at the end. It connects by itself, now or later; nothing waits for it here.

    `tls`: nothing but mutual TLS is spoken then, with the service `callee` (`service`, unless it is named).
    """
    async with AsyncExitStack() as stack:
        if tls is None:
            channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        else:
            channel = RenewedChannel(address, _OPTIONS, tls, callee or service)
            await stack.enter_async_context(channel.renewing())
        stack.push_async_callback(channel.close, grace=1.0)
        yield ServiceChannel(service, channel, ServiceToken(service_token))
