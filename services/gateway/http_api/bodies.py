"""Bodies and parameters of requests, and the JSON of answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from hashlib import blake2b
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from aiohttp import web
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import context
from chassis.clock import rfc3339
from chassis.errors import Forbidden, Invalid, Malformed, TooLarge, UnsupportedMediaType
from chassis.ids import is_uuid
from chassis.principals import Principal
from services.gateway import errors, metrics
from services.gateway.http_api.json_objects import json_object
from services.gateway.http_api.shapes import Asked, Faults, read_from_texts, shaped
from services.gateway.routes import ADMISSION, BEGAN, CALLER, HELD_BODIES, SHOWN_ONCE, SLOW_CLIENT_SECONDS

T = TypeVar("T", bound=msgspec.Struct)

#: The largest body, as sent.
MOST_BYTES = 1 << 20
#: The largest JSON object that is decoded here; a route whose objects may well be larger says so.
MOST_OBJECT_BYTES = 128 << 10
#: Who calls is asked anew after a body that took longer: what was revoked works no longer than that, and a principal
#: that was taken before may have less than two seconds left.
_ADMITTED_SECONDS = 1.0
#: A body that was not here with its headers, for those who read it again.
_ARRIVED = web.RequestKey("arrived", bytes)


class Page(Asked):
    """Which part of a list is wanted."""

    page_size: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50
    #: What the part before has answered; "" asks for the first.
    page_token: str = ""


@dataclass(frozen=True)
class Taking(Generic[T]):
    """A handler that is given the JSON object in the request's body as a struct.

    Raises what `_parsed` does, VALIDATION_FAILED for every fault, and Forbidden for keys that may not call it.
    """

    shape: type[T]
    handler: Callable[[web.Request, T], Awaitable[web.StreamResponse]]
    #: What else is wrong with a body at fault, so that its author is told everything at once.
    further_faults: Callable[[T], Awaitable[Faults]] | None = None
    #: What a key needs, or a person's role in the project; "": no key may, and the service behind knows the roles.
    scope: str = ""
    #: The largest body.
    most_bytes: int = MOST_OBJECT_BYTES

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if CALLER in request:
            self._require(request[CALLER].principal)  # before the body costs anything
        body, faults = await _parsed(request, self.shape, self.most_bytes)
        if faults:
            further = await self.further_faults(body) if self.further_faults else {}
            raise Invalid.fields({**further, **faults})
        return await self.handler(request, body)

    def _require(self, principal: Principal) -> None:
        if self.scope:
            principal.require(self.scope)
        elif principal.kind != "user":
            raise Forbidden("An API key cannot do this. Sign in as a person.", code="INSUFFICIENT_SCOPE")


@dataclass(frozen=True)
class Asking(Generic[T]):
    """A handler that is given the parameters in the request's address as a struct. Raises VALIDATION_FAILED."""

    shape: type[T]
    handler: Callable[[web.Request, T], Awaitable[web.StreamResponse]]

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        parameters, faults = read_from_texts(request.query, self.shape)
        if faults:
            raise Invalid.fields(faults)
        return await self.handler(request, parameters)


async def read(request: web.Request, most_bytes: int = MOST_BYTES) -> bytes:
    """The body as it was sent. Raises TooLarge, Unavailable where too much arrives, or what refuses a caller who may
    not call any more when it is here; a client that takes too long is cut."""
    if (request.content_length or 0) > most_bytes:
        raise _too_large(most_bytes)
    began = request[BEGAN]
    body = await _read_whole(request, most_bytes)
    if len(body) > most_bytes:
        raise _too_large(most_bytes)
    took_seconds = request[BEGAN] - began
    if took_seconds > _ADMITTED_SECONDS and ADMISSION in request:
        await request[ADMISSION](request)
    return body


async def _read_whole(request: web.Request, most_bytes: int) -> bytes:
    try:
        if request.content.is_eof():  # it is here already, or was waited for before
            return await request.read() or request.get(_ARRIVED, b"")
        with _of_its_client(request):
            async with asyncio.timeout(request[SLOW_CLIENT_SECONDS]):
                request[_ARRIVED] = await _arriving(request, most_bytes)
        return request[_ARRIVED]
    except TimeoutError as error:
        metrics.SLOW_CLIENTS.labels("body").inc()
        if request.transport is not None:
            request.transport.abort()
        raise Malformed("The body took too long to arrive.") from error
    except ConnectionError as error:
        raise Malformed("The connection ended before the body did.") from error


@contextmanager
def _of_its_client(request: web.Request) -> Iterator[None]:
    """What the block takes is its client's time: neither a part of how long the answer takes nor of how long it may."""
    waiting_since, deadline = time.monotonic(), context.DEADLINE.get()
    try:
        yield
    finally:
        waited = time.monotonic() - waiting_since
        request[BEGAN] += waited
        if deadline is not None:
            context.DEADLINE.set(deadline + waited)


async def _arriving(request: web.Request, most_bytes: int) -> bytes:
    body, held = bytearray(), request[HELD_BODIES].begin()
    while chunk := await request.content.readany():
        if len(body) + len(chunk) > most_bytes:
            raise _too_large(most_bytes)
        held.more(len(chunk))
        body += chunk
    return bytes(body)


def _too_large(most_bytes: int) -> TooLarge:
    return TooLarge(f"A body may have {most_bytes} bytes as it is sent. Send several smaller ones.")


async def _parsed(request: web.Request, shape: type[T], most_bytes: int) -> tuple[T, Faults]:
    """The request's JSON object as a struct (as `shaped` makes it), and what is wrong with it.

    Raises UnsupportedMediaType, TooLarge, or what `json_object` does.
    """
    if request.content_type != "application/json":
        raise UnsupportedMediaType("Send this as application/json.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send this without a Content-Encoding.")
    return shaped(json_object(await read(request, most_bytes)), shape)


def path_id(request: web.Request, name: str) -> str:
    """An id from the request's path. Raises NotFound where it cannot be one."""
    found = request.match_info[name]
    if not is_uuid(found):
        raise errors.not_found()
    return found


def has_it(request: web.Request, etag: str) -> bool:
    """Whether the client says, by If-None-Match, that it has what this ETag names."""
    offered = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    return "*" in offered or etag.removeprefix("W/") in offered


def etag_of(body: bytes) -> str:
    """What names these bytes."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


def answer(
    body: msgspec.Struct | Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer."""
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json", headers=headers)


def shown_once(response: web.Response) -> web.Response:
    """An answer with a secret: it is not kept to be given again."""
    response[SHOWN_ONCE] = True
    return response


def no_content() -> web.Response:
    """204."""
    return web.Response(status=204)


def moment(timestamp: Timestamp) -> str:
    """RFC 3339 in UTC."""
    return rfc3339(timestamp.ToDatetime(UTC))


def optional_moment(message: Any, field: str) -> str | None:
    """RFC 3339 of a timestamp field, None where it is not set."""
    return moment(getattr(message, field)) if message.HasField(field) else None
