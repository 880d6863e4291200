"""Connections of clients: what aiohttp leaves to its users.

aiohttp has no time limit for a request's headers and none for reading an answer, answers what cannot be parsed in plain
text, and would decompress bodies, which is the receiver's business.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from chassis import context
from chassis.errors import Internal, Malformed
from chassis.tasks import in_background
from services.gateway import errors, metrics
from services.gateway.http_api import Api
from services.gateway.routes import ENDS_WITH_CLIENT
from services.gateway.tls import Certificate

#: Connections that the kernel holds before they are accepted.
_BACKLOG = 2048
_KEEPALIVE_SECONDS = 75.0
#: What a client must at least read of its answers in the time that it has, while more of them waits for it.
_LEAST_READ_BYTES = 1 << 16


class _Connection(RequestHandler):
    """One client's connection, which is cut when headers take too long, or answers are not read."""

    def __init__(self, *args: Any, patience_seconds: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience_seconds = patience_seconds
        self._cut: asyncio.TimerHandle | None = None
        #: aiohttp forgets its own when it closes, which takes until everything was read.
        self._writes_to: asyncio.Transport | None = None
        self._cut_reader: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._writes_to = self.transport
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages or self._current_request is not None:
            self._stop_waiting()  # a request is there; its body is waited for where it is read
        elif self._cut is None:
            self._wait_for_headers()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp calls this after each reading of a body. Where nothing had paused, there is nothing to resume: it
        would look for the next request in no bytes at all."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        self._stop_waiting_for_reader()
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_waiting()
        self._stop_waiting_for_reader()
        self._writes_to = None
        if self._current_request is not None and ENDS_WITH_CLIENT in self._current_request and self._task_handler:
            self._task_handler.cancel()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        self._cut = self._loop.call_later(self._patience_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None

    def _wait_for_reader(self) -> None:
        if self._writes_to is not None:
            unread = self._writes_to.get_write_buffer_size()
            self._cut_reader = self._loop.call_later(self._patience_seconds, self._judge_reader, unread)

    def _stop_waiting_for_reader(self) -> None:
        if self._cut_reader is not None:
            self._cut_reader.cancel()
            self._cut_reader = None

    def _judge_reader(self, unread_before: int) -> None:
        """Waits on for a client that reads, though slowly; cuts others, with what they have not read."""
        if self._writes_to is None:
            return
        if self._writes_to.get_write_buffer_size() <= unread_before - _LEAST_READ_BYTES:
            self._wait_for_reader()
        else:
            metrics.SLOW_CLIENTS.labels("answer").inc()
            self._writes_to.abort()

    def _give_up(self) -> None:
        metrics.SLOW_CLIENTS.labels("headers").inc()
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - the signature of aiohttp
    ) -> web.StreamResponse:
        """Answers what never reached the application, in the one shape, and closes the connection."""
        if status >= 500:
            self.log_exception("request failed outside the application", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was already under way")
        context.CORRELATION_ID.set(context.correlation_id_or_new(None))
        known = status < 500
        error = Malformed("This is not a valid HTTP request.") if known else Internal("Something went wrong.")
        response = web.Response(
            status=status,
            body=errors.render(error, "", "")[0],
            content_type="application/json",
            headers={"X-Correlation-Id": context.CORRELATION_ID.get(), "Server": "pulsegate"},
        )
        response.force_close()
        return response


class _Server(web.Server):
    """Makes connections."""

    def __init__(self, *args: Any, patience_seconds: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience_seconds = patience_seconds

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, patience_seconds=self._patience_seconds, **self._kwargs)


class _Runner(web.AppRunner):
    """Runs an API on a `_Server`."""

    __slots__ = ("_api", "_patience_seconds")

    def __init__(self, api: Api, *, patience_seconds: float, **kwargs: Any) -> None:
        super().__init__(api.app, **kwargs)
        self._api = api
        self._patience_seconds = patience_seconds

    async def _make_server(self) -> web.Server:
        usual = await super()._make_server()
        return _Server(
            self._api.entrance(usual.request_handler),
            request_factory=usual.request_factory,
            loop=asyncio.get_running_loop(),
            patience_seconds=self._patience_seconds,
            **usual._kwargs,
        )


class _Site(web.TCPSite):
    """Where a runner listens; a TLS handshake has as long as a request's headers."""

    def __init__(
        self, runner: _Runner, host: str, port: int, certificate: Certificate | None, *, patience_seconds: float
    ) -> None:
        context = certificate.context if certificate else None
        super().__init__(runner, host, port, backlog=_BACKLOG, reuse_address=True, ssl_context=context)
        self._handshake_seconds = patience_seconds if certificate else None

    async def start(self) -> None:
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None  # noqa: S101 - the runner was set up
        self._server = await asyncio.get_running_loop().create_server(
            server,
            self._host,
            self._port,
            ssl=self._ssl_context,
            ssl_handshake_timeout=self._handshake_seconds,
            backlog=self._backlog,
            reuse_address=self._reuse_address,
        )


@asynccontextmanager
async def serving(
    api: Api,
    host: str,
    port: int,
    *,
    certificate: Certificate | None,
    patience_seconds: float,
    drain_seconds: float,
) -> AsyncIterator[None]:
    """Serves while open, with TLS where there is a certificate; then lets the requests under way finish.

    They have up to `drain_seconds`. Raises OSError where the port is taken.
    """
    runner = _Runner(
        api,
        patience_seconds=patience_seconds,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=drain_seconds,
        keepalive_timeout=_KEEPALIVE_SECONDS,
        auto_decompress=False,
    )
    await runner.setup()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        if certificate is not None:
            await stack.enter_async_context(in_background(certificate.renewing()))
        await _Site(runner, host, port, certificate, patience_seconds=patience_seconds).start()
        yield
