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
                app.router.add_get(route.path, handler)
            else:
                app.router.add_route(route.method, route.path, handler)
    return app
