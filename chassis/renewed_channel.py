"""A gRPC channel under mutual TLS that outlives its certificates: a new connection first, then the old one drained."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc

from chassis import logs
from chassis.mutual_tls import Material, MutualTls
from chassis.tasks import ended, in_background

log = logs.get(__name__)

#: No connection with new files for so long is worth a word each time: a server may not know them yet, or never will.
_PATIENCE_SECONDS = 30.0
#: What was begun over the old connections has so long to end: longer than any call and any stream of batches lasts.
_DRAIN_SECONDS = 60.0

Options = Sequence[tuple[str, Any]]


class RenewedChannel(grpc.aio.Channel):
    """Whichever channel is the present one; methods that were taken from it follow."""

    def __init__(self, address: str, options: Options, tls: MutualTls, callee: str) -> None:
        """`callee`: the service that the server's certificate must name."""
        self._address = address
        self._options = [*options, ("grpc.ssl_target_name_override", tls.name_of(callee))]
        self._tls = tls
        self._material = tls.material
        self._replaced = asyncio.Event()
        self.present = self._opened(self._material)

    def _opened(self, material: Material) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(self._address, material.of_channel(), options=self._options)

    @asynccontextmanager
    async def renewing(self) -> AsyncIterator[None]:
        """Follows the files while open."""
        async with in_background(self._follow()):
            yield

    async def _follow(self) -> None:
        async with asyncio.TaskGroup() as draining:
            while True:
                material = await self._tls.other_than(self._material)
                fresh = self._opened(material)
                if not await self._connects(fresh, material):
                    continue
                old, self.present, self._material = self.present, fresh, material
                self._replaced.set()
                self._replaced = asyncio.Event()
                draining.create_task(_drained(old))

    async def _connects(self, fresh: grpc.aio.Channel, material: Material) -> bool:
        """Whether a connection comes about before there are newer files, which may take for ever: calls go on as before
        until then. Where none does it is closed."""
        ready = asyncio.ensure_future(fresh.channel_ready())
        newer = asyncio.ensure_future(self._tls.other_than(material))
        either = partial(asyncio.wait, [ready, newer], timeout=_PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        connected = False
        try:
            while not (await either())[0]:
                log.warning("no connection with the new certificate files yet", address=self._address)
            connected = ready.done()
        finally:
            try:
                await ended([ready, newer])
            finally:
                if not connected:
                    await fresh.close()
        return connected

    def unary_unary(self, method: str, *serializers: Any, **more: Any) -> Any:
        return _Method(self, method, lambda channel: channel.unary_unary(method, *serializers, **more))

    def unary_stream(self, method: str, *serializers: Any, **more: Any) -> Any:
        return _Method(self, method, lambda channel: channel.unary_stream(method, *serializers, **more))

    def stream_unary(self, method: str, *serializers: Any, **more: Any) -> Any:
        return _Method(self, method, lambda channel: channel.stream_unary(method, *serializers, **more))

    def stream_stream(self, method: str, *serializers: Any, **more: Any) -> Any:
        return _Method(self, method, lambda channel: channel.stream_stream(method, *serializers, **more))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.present.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns also where another channel has become the present one: ask for its state."""
        waiting = asyncio.ensure_future(self.present.wait_for_state_change(last_observed_state))
        replaced = asyncio.ensure_future(self._replaced.wait())
        try:
            await asyncio.wait([waiting, replaced], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended([waiting, replaced])

    async def channel_ready(self) -> None:
        await self.present.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        await self.present.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()


class _Method:
    """A method of the present channel."""

    def __init__(self, channel: RenewedChannel, name: str, bind: Callable[[grpc.aio.Channel], Any]) -> None:
        self._channel = channel
        self._method = name  # as gRPC's own methods have it
        self._bind = bind
        self._bound_to = channel.present
        self._bound = bind(self._bound_to)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        present = self._channel.present
        if present is not self._bound_to:
            self._bound, self._bound_to = self._bind(present), present
        return self._bound(*arguments, **options)


async def _drained(old: grpc.aio.Channel) -> None:
    """Closes a channel once what was begun over it has had its time, or at once where this is cancelled."""
    try:
        await asyncio.sleep(_DRAIN_SECONDS)
    finally:
        await old.close()
