"""The public HTTP API: one file a resource, each with its table of routes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware

from services.gateway.http_api.bodies import MOST_BYTES, SLOW_CLIENT_SECONDS
from services.gateway.middlewares import Stage, through
from services.gateway.routes import Door, Route


class Resource(Protocol):
    """A part of the API."""

    def routes(self) -> Sequence[Route]: ...


def application(
    resources: Iterable[Resource],
    doors: Mapping[Door, Sequence[Stage]],
    every_request: Sequence[Middleware],
    *,
    slow_client_seconds: float,
) -> web.Application:
    """The aiohttp application of all resources, each route behind its door."""
    app = web.Application(middlewares=every_request, client_max_size=MOST_BYTES)
    app[SLOW_CLIENT_SECONDS] = slow_client_seconds
    for resource in resources:
        for route in resource.routes():
            handler = through(doors[route.door], route.handler)
            if route.method == "GET":
                app.router.add_get(route.path, handler, expect_handler=_go_on)
            else:
                app.router.add_route(route.method, route.path, handler, expect_handler=_go_on)
    return app


async def _go_on(request: web.Request) -> None:
    """Tells a client that waits for it to send the body. Any other expectation is ignored (RFC 9110, 10.1.1)."""
    if request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun
