"""What a route is: a path, a handler, and the door through which a request reaches it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from aiohttp import web

from services.gateway.domain import Verdict

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Who calls, in a request that went through a door with authentication.
CALLER = web.RequestKey("caller", Verdict)
#: Headers that the answer gets, also where a later stage raises.
ADDED_HEADERS = web.RequestKey("added_headers", dict[str, str])
#: How long the client may take to send a body.
SLOW_CLIENT_SECONDS = web.RequestKey("slow_client_seconds", float)


class Door(Enum):
    """Who may use a route, and what it counts towards. `middlewares.doors` says what each one does."""

    #: Anybody, without limits: static files, health.
    OPEN = "open"
    #: Anybody, limited by address.
    ANYBODY = "anybody"
    #: Signing up and in: limited by address and by account.
    SIGN_IN = "sign in"
    #: A person or key about their own account or the project in the path.
    READ = "read"
    WRITE = "write"
    #: Generation, exports and bulk operations.
    EXPENSIVE = "expensive"
    #: A key, or a person with `?projectId=`.
    QUERY = "query"
    #: Keys only.
    INGESTION = "ingestion"


@dataclass(frozen=True)
class Route:
    """One route; `path` is a pattern of aiohttp."""

    method: str
    path: str
    handler: Handler
    door: Door
    #: Found without aiohttp's router: for the busiest routes, whose path is no pattern.
    direct: bool = False
