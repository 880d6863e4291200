"""Bodies and parameters of requests, and the JSON of answers."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from aiohttp import web
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.clock import rfc3339
from chassis.errors import Invalid, Malformed, TooLarge, UnsupportedMediaType
from chassis.ids import is_uuid
from services.gateway import errors, metrics
from services.gateway.http_api.shapes import MOST_FAULTS, Asked, Faults, read_from_texts, shaped
from services.gateway.routes import SHOWN_ONCE, SLOW_CLIENT_SECONDS

T = TypeVar("T", bound=msgspec.Struct)

#: The largest body, as sent.
MOST_BYTES = 1 << 20

_LONGEST_MEMBER = 300


class Page(Asked):
    """Which part of a list is wanted."""

    page_size: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50
    #: What the part before has answered; "" asks for the first.
    page_token: str = ""


@dataclass(frozen=True)
class Taking(Generic[T]):
    """A handler that is given the JSON object in the request's body as a struct.

    Raises what `_parsed` does, and VALIDATION_FAILED for every fault.
    """

    shape: type[T]
    handler: Callable[[web.Request, T], Awaitable[web.StreamResponse]]
    #: What else is wrong with a body at fault, so that its author is told everything at once.
    further_faults: Callable[[T], Awaitable[Faults]] | None = None

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body, faults = await _parsed(request, self.shape)
        if faults:
            further = await self.further_faults(body) if self.further_faults else {}
            raise Invalid.fields({**further, **faults})
        return await self.handler(request, body)


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


async def read(request: web.Request) -> bytes:
    """The body as it was sent. Raises TooLarge; a client that takes too long is cut."""
    if (request.content_length or 0) > MOST_BYTES:
        raise _too_large()
    try:
        if request.content.is_eof():  # it is here already: nothing to wait for
            return await request.read()
        async with asyncio.timeout(request[SLOW_CLIENT_SECONDS]):
            return await request.read()
    except TimeoutError as error:
        metrics.SLOW_CLIENTS.labels("body").inc()
        if request.transport is not None:
            request.transport.abort()
        raise Malformed("The body took too long to arrive.") from error
    except ConnectionError as error:
        raise Malformed("The connection ended before the body did.") from error
    except web.HTTPRequestEntityTooLarge as error:
        raise _too_large() from error


def _too_large() -> TooLarge:
    return TooLarge(f"A body may have {MOST_BYTES} bytes as it is sent. Send several smaller ones.")


async def _parsed(request: web.Request, shape: type[T]) -> tuple[T, Faults]:
    """The request's JSON object as a struct (as `shaped` makes it), and what is wrong with it.

    Raises UnsupportedMediaType, MALFORMED_JSON or, where it is no object or its text is no text, VALIDATION_FAILED.
    """
    if request.content_type != "application/json":
        raise UnsupportedMediaType("Send this as application/json.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send this without a Content-Encoding.")
    decoded = _decode(await read(request))
    if not isinstance(decoded, dict):
        raise Invalid("The body must be a JSON object.")
    return shaped(decoded, shape)


class _NotJsonError(ValueError):
    """What Python's parser would take and JSON does not have; the text is for the client."""


def _decode(body: bytes) -> Any:
    try:
        decoded = json.loads(body.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _NotJsonError) else "it cannot be parsed"
        raise errors.malformed_json(f"The body is not valid JSON: {reason}.") from error
    faults: Faults = {}
    for member, text in _texts(decoded):
        if "\x00" in text and len(faults) < MOST_FAULTS:
            faults[member] = "may not contain the character U+0000"
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise errors.malformed_json("The body is not valid JSON: it holds half of a surrogate pair.")
    if faults.pop("", None):
        raise Invalid("The name of a member may not contain the character U+0000.")
    if faults:
        raise Invalid.fields(faults)
    return decoded


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _NotJsonError("an object names a member twice")
    return members


def _no_constant(name: str) -> Any:
    raise _NotJsonError(f"{name} is not a JSON value")


def _texts(decoded: Any) -> Iterator[tuple[str, str]]:
    """Every text and the member that it is in; the name of a member is a text in the one around it, "" at the top."""
    around = [iter([("", decoded)])]
    while around:
        for member, value in around[-1]:
            if isinstance(value, str):
                yield member, value
            elif isinstance(value, dict | list):
                around.append(_inside(member, value))
                break
        else:
            around.pop()


def _inside(member: str, value: dict[str, Any] | list[Any]) -> Iterator[tuple[str, Any]]:
    """Names and values, each with its member; what lies so deep that this would get long has the one around it."""
    if len(member) > _LONGEST_MEMBER:
        yield from (
            (member, inner) for part in (value.items() if isinstance(value, dict) else [value]) for inner in part
        )
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield member, name
            yield f"{member}.{name[:100]}".lstrip("."), inner
    else:
        yield from ((f"{member}[{index}]", inner) for index, inner in enumerate(value))


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
