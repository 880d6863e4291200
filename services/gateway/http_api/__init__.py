"""The public HTTP API: one file a resource, each with its table of routes."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

from aiohttp import hdrs, web

from services.gateway.http_api.bodies import MOST_BYTES
from services.gateway.http_api.openapi import Resource
from services.gateway.middlewares import Pipeline, Stage, announcing, through
from services.gateway.routes import Audience, Handler

#: Answers a request for which no route was looked up yet.
Entrance = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """All resources, each route behind the stages of its audience, and the pipeline around everything."""

    def __init__(
        self, resources: Iterable[Resource], stages_by_audience: Mapping[Audience, Sequence[Stage]], pipeline: Pipeline
    ) -> None:
        #: The aiohttp application.
        self.app = web.Application(middlewares=[pipeline.routed], client_max_size=MOST_BYTES)
        self._direct: dict[tuple[str, str], Handler] = {}
        routes = [route for resource in resources for route in resource.routes()]
        pipeline.know(routes)
        for route in routes:
            # Outermost, because a caller who is refused must read of it too.
            stages = [
                *([announcing(route.deprecation)] if route.deprecation else []),
                *stages_by_audience[route.audience],
            ]
            handler = through(stages, route.handler)
            if route.direct:
                self._direct[route.method, route.path] = partial(pipeline.run, handler=handler, route=route.path)
            if route.method == "GET":
                self.app.router.add_get(route.path, handler, expect_handler=_go_on)
            else:
                self.app.router.add_route(route.method, route.path, handler, expect_handler=_go_on)

    def entrance(self, routed: Entrance) -> Entrance:
        """Where requests come in: to a direct route, or to the application's own `routed`."""
        direct = self._direct

        def enter(request: web.Request) -> Awaitable[web.StreamResponse]:
            handler = direct.get((request.method, request.rel_url.raw_path))
            if handler is None or hdrs.EXPECT in request.headers:
                return routed(request)
            return handler(request)

        return enter


async def _go_on(request: web.Request) -> None:
    """Tells a client that waits for it to send the body. Any other expectation is ignored (RFC 9110, 10.1.1)."""
    if request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun
