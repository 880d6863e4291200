"""The gRPC server of a service: identity, deadlines, errors, metrics, traces, health and a graceful end."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry.trace import SpanKind

from chassis import context, logs, metrics, principals, tracing
from chassis.callers import Callers
from chassis.errors import ERROR_METADATA_KEY, Forbidden, Internal, PulsegateError, Unauthenticated, to_wire
from chassis.grpc_metadata import CORRELATION_ID_KEY, PRINCIPAL_KEY, SERVICE_TOKEN_KEY
from chassis.health import Health
from chassis.mutual_tls import MutualTls
from chassis.principals import PrincipalVerifier
from chassis.service_tokens import ServiceToken
from chassis.tasks import in_background

log = logs.get(__name__)

_OPTIONS = [
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
]

#: Adds one servicer to a server: `lambda server: add_…Servicer_to_server(servicer, server)`.
Registration = Callable[[grpc.aio.Server], None]


@asynccontextmanager
async def serving(
    host: str,
    port: int,
    registrations: Iterable[Registration],
    *,
    callers: Callers,
    service_token: str | Callable[[], str],
    verifier: PrincipalVerifier,
    process_health: Health,
    tls: MutualTls | None = None,
    drain_seconds: float = 10.0,
) -> AsyncIterator[grpc.aio.Server]:
    """Serves while open; then refuses new calls and lets those under way finish for up to `drain_seconds`.

    A method that `callers` does not name is refused. With `tls` the port speaks mutual TLS alone, and each method
    answers the services that `callers` names for it; without it nobody is told apart who has the service token.

    Raises RuntimeError where the port is taken. Ends the block where the process's health cannot be told any more.
    """
    interceptor = _Interceptor(callers, ServiceToken(service_token), verifier, tls)
    server = grpc.aio.server(interceptors=[interceptor], options=_OPTIONS)
    for register in registrations:
        register(server)
    grpc_health = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(grpc_health, server)
    if tls is None:
        server.add_insecure_port(f"{host}:{port}")
    else:
        server.add_secure_port(f"{host}:{port}", tls.server_credentials())
    await server.start()
    try:
        async with in_background(_mirror_health(process_health, grpc_health)):
            yield server
    finally:
        await grpc_health.enter_graceful_shutdown()
        await server.stop(drain_seconds)


async def _mirror_health(process_health: Health, grpc_health: health.aio.HealthServicer) -> None:
    while True:
        serving_now = process_health.status != "unready"
        status = health_pb2.HealthCheckResponse.SERVING if serving_now else health_pb2.HealthCheckResponse.NOT_SERVING
        await grpc_health.set("", status)
        await asyncio.sleep(0.25)


class _Interceptor(grpc.aio.ServerInterceptor):
    """Wraps each handler: who calls, for whom, until when; what it took and what came of it."""

    def __init__(
        self, callers: Callers, service_token: ServiceToken, verifier: PrincipalVerifier, tls: MutualTls | None
    ) -> None:
        self._callers = callers
        self._service_token = service_token
        self._verifier = verifier
        self._tls = tls

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(details)
        if handler is None or details.method.startswith("/grpc.health."):
            return handler
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(details.method, handler.stream_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(details.method, handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(details.method, handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _unary(self, method: str, behaviour: Any) -> Any:
        async def serve(request: Any, call: grpc.aio.ServicerContext[Any, Any]) -> Any:
            async with self._serving(method, call):
                return await behaviour(request, call)

        return serve

    def _streaming(self, method: str, behaviour: Any) -> Any:
        async def serve(request: Any, call: grpc.aio.ServicerContext[Any, Any]) -> Any:
            async with self._serving(method, call):
                async for response in behaviour(request, call):
                    yield response

        return serve

    @asynccontextmanager
    async def _serving(self, method: str, call: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
        began = time.monotonic()
        metadata = {str(key): value for key, value in call.invocation_metadata() or ()}
        status, exemplar = grpc.StatusCode.OK, None
        try:
            self._admit(method, metadata, call)
            await self._enter(metadata, call)
            with tracing.span(method, kind=SpanKind.SERVER, carrier=_text_only(metadata)):
                exemplar = tracing.exemplar()
                yield
        except PulsegateError as error:
            status = error.grpc_status
            await _abort(call, error)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            status = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:  # the edge of the service: the unknown becomes a bland internal error
            status = grpc.StatusCode.INTERNAL
            log.exception("call failed", method=method)
            await _abort(call, Internal("Something went wrong inside Pulsegate."), cause=error)
        finally:
            metrics.GRPC_SERVED.labels(method, status.name).observe(time.monotonic() - began, exemplar)

    def _admit(self, method: str, metadata: dict[str, Any], call: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Refuses who is no service of this installation, or none that may call this method."""
        if not self._service_token.accepts(str(metadata.get(SERVICE_TOKEN_KEY, ""))):
            raise Unauthenticated("This port is for Pulsegate's own services.")
        caller = self._tls.caller(call.auth_context()) if self._tls else ""
        allowed = self._callers.get(method)
        if allowed is None or (self._tls and caller not in allowed):
            metrics.CALLERS_REFUSED.labels(method, caller).inc()
            log.warning("a caller is not on the list of a method", method=method, caller=caller)
            raise Forbidden(f"{method} does not answer {caller or 'anybody'}.")

    async def _enter(self, metadata: dict[str, Any], call: grpc.aio.ServicerContext[Any, Any]) -> None:
        context.CORRELATION_ID.set(context.correlation_id_or_new(metadata.get(CORRELATION_ID_KEY)))
        left = call.time_remaining()
        context.DEADLINE.set(None if left is None else time.monotonic() + left)
        token = str(metadata.get(PRINCIPAL_KEY, ""))
        context.PRINCIPAL_TOKEN.set(token)
        principals.CURRENT.set(await self._verifier.verify(token) if token else None)


def _text_only(metadata: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if isinstance(value, str)}


async def _abort(
    call: grpc.aio.ServicerContext[Any, Any], error: PulsegateError, cause: Exception | None = None
) -> None:
    metrics.ERRORS.labels(error.code).inc()
    try:
        await call.abort(error.grpc_status, error.code, ((ERROR_METADATA_KEY, to_wire(error)),))
    except grpc.aio.AbortError as abort:
        raise abort from (cause or error)
