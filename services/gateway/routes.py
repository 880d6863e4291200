"""What a route is: a path, a handler, its audience, and what its readers are told.

The table of a resource's routes is the only place where a route is described: the OpenAPI document is made of it
(`http_api.openapi`), what it says about requests is what checks them (`http_api.bodies`), and which of them are logged
and which pages may send them follows from it (`middlewares.Pipeline`).
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

import msgspec
from aiohttp import web

from services.gateway.domain import Verdict
from services.gateway.shares import HeldBytes

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
#: Says who calls, or raises.
Admission = Callable[[web.Request], Awaitable[None]]

#: Who calls, in a request that a stage has authenticated.
CALLER = web.RequestKey("caller", Verdict)
#: What has said so, and can say it anew.
ADMISSION = web.RequestKey[Admission]("admission")
#: Headers that the answer gets, also where a later stage raises.
ADDED_HEADERS = web.RequestKey("added_headers", dict[str, str])
#: In an answer: it shows a secret, which is shown once and kept nowhere.
SHOWN_ONCE = web.ResponseKey("shown_once", bool)
#: In an answer: what it takes of the memory for answers was taken while it was made.
HELD = web.ResponseKey("held", bool)
#: When it began, on `time.monotonic()`'s scale: when its headers were here, moved on by what its body took to arrive.
BEGAN = web.RequestKey("began", float)
#: How long the client may take to send a body.
SLOW_CLIENT_SECONDS = web.RequestKey("slow_client_seconds", float)
#: What counts the bodies that were not here with their headers.
HELD_BODIES = web.RequestKey("held_bodies", HeldBytes)
#: Set while a request is answered that ends with its client's connection: it changes nothing, and may take long.
ENDS_WITH_CLIENT = web.RequestKey("ends_with_client", bool)

#: The name that a client gives to a request that it may send again, and what says that an answer is one from before.
IDEMPOTENCY_KEY = "Idempotency-Key"
IDEMPOTENT_REPLAYED = "Idempotent-Replayed"

#: Below it is what pages load, and what caches share between them.
BELOW_SDK = "/sdk/"
_BELOW_HEALTH = "/health/"

#: In a route's path: the name, and what it must match where that is said.
PARAMETER = re.compile(r"\{(\w+)(?::((?:[^{}]|\{[^{}]*\})*))?\}")


class Audience(Enum):
    """Who may use a route, and what it counts towards. `middlewares.stages_by_audience` says what stands before it."""

    #: Anybody, without limits: static files, health.
    OPEN = "open"
    #: Anybody, limited by address.
    ANYBODY = "anybody"
    #: Signing up and in: limited by address and by account.
    SIGN_IN = "sign in"
    #: A person or key about their own account or the project in the path.
    READ = "read"
    WRITE = "write"
    #: As WRITE, with a password, a code or a mailed token in the body: nothing is kept of that, not even a hash, so
    #: that such a request takes no Idempotency-Key.
    PROOF = "proof"
    #: Generation, exports and bulk operations.
    EXPENSIVE = "expensive"
    #: A key, or a person with `?projectId=`.
    QUERY = "query"
    #: Keys only.
    INGESTION = "ingestion"
    #: Identity providers only, by their provisioning tokens.
    PROVISIONING = "provisioning"


@dataclass(frozen=True)
class Media:
    """A body in other formats than JSON, or in several."""

    types: Sequence[str]
    #: A struct where all these formats say what it says as JSON.
    shape: type[msgspec.Struct] | None = None
    #: Further formats, which say it otherwise.
    others: Sequence[str] = ()


@dataclass(frozen=True)
class Header:
    """A header of a request that means something to a route."""

    name: str
    says: str
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Deprecation:
    """A route that goes away. Both moments are with time zone."""

    since: datetime
    #: When it may stop to answer.
    sunset: datetime
    #: Where its users read what to do instead; an absolute address or one of this gateway.
    advice: str


@dataclass(frozen=True)
class Operation:
    """What the readers of the API are told about a route; errors that its audience and its handler bring are added."""

    #: A few words, different for each route: its name is made of them.
    summary: str
    #: Bodies of answers that are no errors, by status: a struct, other media, or None for no body.
    answers: Mapping[int, type[msgspec.Struct] | Media | None]
    #: What the summary leaves open.
    description: str = ""
    #: The body that it takes, where the handler itself reads it.
    body: type[msgspec.Struct] | Media | None = None
    #: Parameters in the address, where the handler itself reads them.
    query: type[msgspec.Struct] | None = None
    headers: Sequence[Header] = ()
    #: Headers of the answers beyond those that every answer has.
    answer_headers: Sequence[str] = ()
    #: Statuses of errors beyond those that its audience and its handler bring.
    errors: Sequence[int] = ()


@dataclass(frozen=True)
class Route:
    """One route; `path` is a pattern of aiohttp."""

    method: str
    path: str
    handler: Handler
    audience: Audience
    operation: Operation
    #: Found without aiohttp's router: for the busiest routes, whose path is no pattern.
    direct: bool = False
    #: None: it stays.
    deprecation: Deprecation | None = None

    @property
    def pattern(self) -> str:
        """The path without what its parameters must match: as OpenAPI, metrics and logs have it."""
        return PARAMETER.sub(r"{\1}", self.path)

    @property
    def prefix(self) -> str:
        """What the paths of all its requests begin with."""
        return self.path.partition("{")[0]

    @property
    def is_quiet(self) -> bool:
        """Whether its requests are not logged one by one."""
        return self.audience is Audience.INGESTION or self.path.startswith(_BELOW_HEALTH)

    @property
    def is_for_any_page(self) -> bool:
        """Whether pages of any origin may call it: a publishable key says which origins may use it."""
        return self.audience is Audience.INGESTION or self.path.startswith(BELOW_SDK)

    @property
    def takes_idempotency_key(self) -> bool:
        """Whether it may be sent again under its Idempotency-Key: the POSTs of known callers, batches excepted."""
        return self.method == "POST" and self.audience in (Audience.WRITE, Audience.EXPENSIVE)

    @property
    def is_revalidated(self) -> bool:
        """Whether its clients may ask whether what they have is still true."""
        return self.method == "GET" and self.audience is Audience.READ
