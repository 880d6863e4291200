"""The JSON of a request's body: an object whose texts are texts, with no member twice.

What a body costs is bounded by its size: beside what is done in C for each byte a few steps for each object, and for
each member and element only where the body has an escape that can bring what is no text.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from chassis.errors import Invalid
from services.gateway import errors
from services.gateway.http_api.shapes import HOLDS_NUL, MOST_FAULTS, Faults

#: What alone can bring U+0000 or half of a surrogate pair: the parser takes neither as it is.
_DOUBTFUL = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_SURROGATE = re.compile("[\ud800-\udfff]")

_LONGEST_MEMBER = 300
_DEEPEST_MEMBER = 40
_CONTAINERS = frozenset({dict, list})


class _NotJsonError(ValueError):
    """What Python's parser would take and JSON does not have; the text is for the client."""


def json_object(body: bytes) -> dict[str, Any]:
    """The object. Raises MALFORMED_JSON or, where it is no object or holds U+0000, VALIDATION_FAILED."""
    try:
        decoded = json.loads(body.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _NotJsonError) else "it cannot be parsed"
        raise errors.malformed_json(f"The body is not valid JSON: {reason}.") from error
    if not isinstance(decoded, dict):
        raise Invalid("The body must be a JSON object.")
    if _DOUBTFUL.search(body):
        _require_texts(decoded)
    return decoded


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _NotJsonError("an object names a member twice")
    return members


def _no_constant(name: str) -> Any:
    raise _NotJsonError(f"{name} is not a JSON value")


def _require_texts(decoded: dict[str, Any]) -> None:
    faults: Faults = {}
    for path, part, text in _texts(decoded):
        if not text.isascii() and _SURROGATE.search(text):
            raise errors.malformed_json("The body is not valid JSON: it holds half of a surrogate pair.")
        if "\x00" in text and len(faults) < MOST_FAULTS:
            member = _member(path if part is None else [*path, part])
            if not member:
                raise Invalid(f"The name of a member {HOLDS_NUL}.")
            faults[member] = HOLDS_NUL
    if faults:
        raise Invalid.fields(faults)


def _texts(decoded: dict[str, Any]) -> Iterator[tuple[Sequence[str | int], str | int | None, str]]:
    """Every text, with the way to what it is in and its name or index there.

    The way is good until the next text. The name of a member is a text, too, with None.
    """
    path: list[str | int] = []
    around: list[Iterator[tuple[str | int, Any]]] = [iter(decoded.items())]
    while around:
        for part, inner in around[-1]:
            if isinstance(part, str):
                yield path, None, part
            if isinstance(inner, str):
                yield path, part, inner
            elif inner and type(inner) in _CONTAINERS:
                path.append(part)
                around.append(iter(inner.items()) if isinstance(inner, dict) else enumerate(inner))
                break
        else:
            around.pop()
            if path:
                path.pop()


def _member(path: Sequence[str | int]) -> str:
    """As `labels[2].name`; what lies so deep that this would get long has the name of what it is in."""
    member = ""
    for part in islice(path, _DEEPEST_MEMBER):
        if len(member) > _LONGEST_MEMBER:
            break
        member = f"{member}[{part}]" if isinstance(part, int) else f"{member}.{part[:100]}".lstrip(".")
    return member
