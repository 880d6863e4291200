"""Idempotency-Key: a POST that comes again under the same key is answered again, and carried out once.

As draft-ietf-httpapi-idempotency-key-header has it. A key belongs to one caller and one route. What was answered is
kept for a day, refusals too that are not for what the request itself says; of one with a secret only that there was
one. Where nothing of it is kept and it certainly was not carried out (429, and what says so of the 503s, too) it is
judged anew when it comes again. Any other 5xx, and a gateway that dies before it has kept the answer, leave that open:
nothing is done under its key any more, because who asks for a key wants it done at most once.
"""

import re
from http import HTTPStatus

from aiohttp import web

from chassis.breakers import NotAsked
from chassis.errors import (
    WAITING_FOR,
    Conflict,
    Invalid,
    Limited,
    Malformed,
    PulsegateError,
    TooLarge,
    UnsupportedMediaType,
    from_wire,
    to_wire,
)
from chassis.grpc_client import NotReached
from services.gateway import errors, metrics
from services.gateway.http_api.bodies import read
from services.gateway.kept_answers import Answer, Claim, KeptAnswers, Taken
from services.gateway.routes import ADDED_HEADERS, CALLER, IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED, SHOWN_ONCE, Handler

#: A string of structured fields (RFC 9651), as the draft wants it, or the same without quotes, as many clients send it.
_KEY = re.compile(r'"([\x20\x21\x23-\x5b\x5d-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')
_RETRY_AFTER_SECONDS = 1.0
_NO_ROOM_RETRY_AFTER_SECONDS = 600.0


class Idempotency:
    """A stage, after the one that says who calls."""

    def __init__(self, kept: KeptAnswers) -> None:
        self._kept = kept

    async def once(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets a POST with a key on where it is the first one, and answers it again where it is not.

        Raises IDEMPOTENCY_KEY_REUSED, IDEMPOTENCY_KEY_IN_USE, RATE_LIMIT_EXCEEDED where there is no room for another
        key of this caller, or Unavailable where it cannot tell: without the certainty that the client asked for,
        nothing is done.
        """
        if request.method != "POST" or IDEMPOTENCY_KEY not in request.headers:
            return await handler(request)
        asked = _name(request, key_of(request.headers.getall(IDEMPOTENCY_KEY)))
        found = await self._kept.claim(asked, await _identity(request))
        if isinstance(found, Claim):
            return await self._carry_out(found, request, handler)
        if found is Taken.UNSETTLED:
            found = _OUTCOME_UNKNOWN
        metrics.KEYED_REQUESTS.labels(_outcome(found)).inc()
        if found is Taken.BY_ANOTHER:
            raise Invalid(
                "This Idempotency-Key was used for another request. Choose a new one for each request.",
                code="IDEMPOTENCY_KEY_REUSED",
            )
        if found is Taken.UNDER_WAY:
            raise Conflict(
                "The request with this Idempotency-Key is under way. Ask again for its answer.",
                code="IDEMPOTENCY_KEY_IN_USE",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        if found is Taken.NO_ROOM:
            raise errors.rate_limit_exceeded("idempotency", _NO_ROOM_RETRY_AFTER_SECONDS)
        return _answered_again(request, found)

    async def _carry_out(self, claim: Claim, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Runs the request. Where it is cancelled nobody knows what came of it: the claim stays, unsettled."""
        try:
            response = await handler(request)
        except PulsegateError as error:
            await self._settle(claim, _kept_of(error))
            raise
        except Exception:
            await self._settle(claim, _OUTCOME_UNKNOWN)
            raise
        assert isinstance(response, web.Response)  # noqa: S101 - no POST behind this stage streams
        await self._settle(claim, _kept(response))
        return response

    async def _settle(self, claim: Claim, answer: Answer | None) -> None:
        kept = await self._kept.settle(claim, answer)
        if answer is None:
            outcome = "failed"
        elif not kept:
            outcome = "lost"
        else:
            outcome = "unknown" if answer is _OUTCOME_UNKNOWN else "answered"
        metrics.KEYED_REQUESTS.labels(outcome).inc()


def _outcome(found: Answer | Taken) -> str:
    """Of a request that is not carried out now."""
    if isinstance(found, Answer):
        return "replayed"
    return "full" if found is Taken.NO_ROOM else "refused"


#: Of a request that may have been carried out or not.
_OUTCOME_UNKNOWN = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, body=None)


def _kept_of(error: PulsegateError) -> Answer | None:
    """What is remembered of an error; None where nothing was carried out, and the client is to try again or would be
    told the same."""
    if isinstance(error, Limited | NotAsked | NotReached) or WAITING_FOR in (error.details or {}):
        return None
    if isinstance(error, Malformed | Invalid | TooLarge | UnsupportedMediaType):
        return None
    if error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _OUTCOME_UNKNOWN
    return Answer(error.http_status, error=to_wire(error))


def _kept(response: web.Response) -> Answer:
    """What is remembered of an answer: all of it, or of one with a secret that there was one."""
    if SHOWN_ONCE in response:
        return Answer(response.status, body=None)
    assert response.body is None or isinstance(response.body, bytes)  # noqa: S101 - no POST behind this stage streams
    headers = [(str(name), value) for name, value in response.headers.items()]
    return Answer(response.status, headers, response.body or b"")


def key_of(lines: list[str]) -> str:
    """The key in the header's lines. Raises Malformed."""
    match = _KEY.fullmatch(lines[0].strip()) if len(lines) == 1 else None
    if match is None:
        raise Malformed(
            "Send one Idempotency-Key of 1 to 255 printable ASCII characters, such as a UUID;"
            ' in quotes where it has blanks, without " in it.'
        )
    return str(match[1] or match[2])


def _name(request: web.Request, key: str) -> bytes:
    """Whose key it is, for which route."""
    principal, resource = request[CALLER].principal, request.match_info.route.resource
    route = resource.canonical if resource is not None else request.path
    return "\n".join((principal.tenant_id, principal.project_id, principal.subject, route, key)).encode()


async def _identity(request: web.Request) -> bytes:
    """All of the request that its answer depends on."""
    head = "\n".join((request.rel_url.raw_path_qs, request.headers.get("Content-Type", ""), ""))
    return head.encode("utf-8", "surrogateescape") + await read(request)


def _answered_again(request: web.Request, answer: Answer) -> web.Response:
    request[ADDED_HEADERS][IDEMPOTENT_REPLAYED] = "true"
    if answer.status == _OUTCOME_UNKNOWN.status:
        raise Conflict(
            "This request failed before in a way that leaves open whether it was carried out. Look, and where it was"
            " not, send it under a new Idempotency-Key.",
            code="IDEMPOTENT_OUTCOME_UNKNOWN",
        )
    if answer.body is None:
        raise Conflict(
            "This request was carried out before. Its answer is not kept, because it showed a secret or there was no"
            " room for it: read what it changed, and make a new secret where that one is lost.",
            code="IDEMPOTENT_ANSWER_NOT_KEPT",
        )
    if answer.error:
        raise from_wire(answer.error)
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
