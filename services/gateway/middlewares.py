"""What happens to a request on its way to its handler and back: a pipeline for all, stages for each audience."""

import time
from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC
from email.utils import format_datetime
from functools import cache, partial
from typing import Protocol

from aiohttp import web
from multidict import CIMultiDict, istr
from opentelemetry.trace import SpanKind
from prometheus_client import Histogram

from chassis import context, logs, tracing
from chassis import metrics as chassis_metrics
from chassis.errors import Internal, Malformed, MethodNotAllowed, PulsegateError, TooLarge
from services.gateway import errors
from services.gateway.authentication import Authentication
from services.gateway.limits import Limits
from services.gateway.request_rules import RequestRules
from services.gateway.routes import (
    ADDED_HEADERS,
    ADMISSION,
    BEGAN,
    BELOW_SDK,
    HELD,
    HELD_BODIES,
    SLOW_CLIENT_SECONDS,
    Admission,
    Audience,
    Deprecation,
    Handler,
    Route,
)
from services.gateway.shares import HOLDERS, HeldBytes

log = logs.get(__name__)


class Stage(Protocol):
    """A step on the way to a handler, which it calls or keeps the request from."""

    def __call__(self, request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]: ...


#: Of bodies that arrive or are worked on, all together.
_MOST_BODY_BYTES = 128 << 20
#: What an answer may have without being counted: nothing waits for a client to read what is not more.
_UNCOUNTED_BYTES = 1 << 16

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_EXPOSED = (
    "X-Correlation-Id, RateLimit, RateLimit-Policy, Retry-After, ETag, Link, Location, X-Content-Integrity, "
    "Deprecation, Sunset, Idempotent-Replayed"
)
_ACCEPTED = (
    "Authorization, Content-Encoding, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-API-Key, "
    "X-Correlation-Id, traceparent"
)
_PREFLIGHT_SECONDS = "7200"

_CORRELATION_ID = istr("X-Correlation-Id")
_ORIGIN = istr("Origin")
_SECURITY_HEADERS = CIMultiDict(
    {
        istr("Server"): "pulsegate",
        istr("Strict-Transport-Security"): "max-age=31536000; includeSubDomains",
        istr("X-Content-Type-Options"): "nosniff",
        istr("X-Frame-Options"): "DENY",
        istr("Content-Security-Policy"): "default-src 'none'; frame-ancestors 'none'",
        istr("Referrer-Policy"): "no-referrer",
        istr("Permissions-Policy"): "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        istr("Cache-Control"): "no-store",
    }
)


class Pipeline:
    """What is around every request, whatever its route."""

    def __init__(
        self,
        rules: RequestRules,
        answers: HeldBytes,
        *,
        timeout_seconds: float,
        slow_client_seconds: float,
        cors_origins: frozenset[str],
    ) -> None:
        self._rules = rules
        self._answers = answers
        self._timeout_seconds = timeout_seconds
        self._slow_client_seconds = slow_client_seconds
        self._cors_origins = cors_origins
        self._held_bodies = HeldBytes("bodies", _MOST_BODY_BYTES)
        self._quiet_patterns: frozenset[str] = frozenset()
        self._prefixes_for_any_page: tuple[str, ...] = ()

    def know(self, routes: Sequence[Route]) -> None:
        """The routes that there are; before the first request."""
        self._quiet_patterns = frozenset(route.pattern for route in routes if route.is_quiet)
        self._prefixes_for_any_page = tuple({route.prefix for route in routes if route.is_for_any_page})

    @web.middleware
    async def routed(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """As a middleware of aiohttp, which has found the route."""
        resource = request.match_info.route.resource
        return await self.run(request, handler, resource.canonical if resource is not None else "none")

    def run(self, request: web.Request, handler: Handler, route: str) -> Awaitable[web.StreamResponse]:
        """Answers a request to a route (its pattern)."""
        # Around everything, because what is measured and logged of a request is found by its trace.
        return (self._traced if tracing.enabled() else self._measured)(request, handler, route)

    async def _traced(self, request: web.Request, handler: Handler, route: str) -> web.StreamResponse:
        method = _known_method(request.method)
        carrier = {key: value for key in ("traceparent", "tracestate") if (value := request.headers.get(key))}
        attributes = {
            "http.request.method": method,
            "http.route": route,
            "url.path": logs.redact_text(request.path),
        }
        with tracing.span(f"{method} {route}", kind=SpanKind.SERVER, carrier=carrier, attributes=attributes) as span:
            response = await self._measured(request, handler, route)
            span.set_attribute("http.response.status_code", response.status)
            span.set_attribute("pulsegate.correlation_id", context.CORRELATION_ID.get())
            if response.status >= 500:
                tracing.failed(span, str(response.status))
            return response

    async def _measured(self, request: web.Request, handler: Handler, route: str) -> web.StreamResponse:
        # First, because whatever happens later must be found by its correlation id and end by its deadline.
        self._enter(request)
        status = 499  # the client went away
        try:
            # Within, because an error's status is measured too.
            response = await self._answer(request, handler)
            # On errors too, because a page must be able to read them, and a browser must not guess at them.
            self._secure(request, response)
            status = response.status
        finally:
            self._measure(request.method, route, status, time.monotonic() - request[BEGAN])
        return response

    def _enter(self, request: web.Request) -> None:
        """Gives the request its correlation id and its deadline, and no identity yet."""
        context.CORRELATION_ID.set(context.correlation_id_or_new(request.headers.get(_CORRELATION_ID)))
        request[BEGAN] = time.monotonic()
        context.DEADLINE.set(request[BEGAN] + self._timeout_seconds)
        context.PRINCIPAL_TOKEN.set("")
        HOLDERS.set(())
        request[ADDED_HEADERS] = {}
        request[SLOW_CLIENT_SECONDS] = self._slow_client_seconds
        request[HELD_BODIES] = self._held_bodies

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Makes an answer of whatever is raised: the only place where that happens."""
        try:
            # First, because what is an attack is to cost nothing else.
            self._rules.check(request)
            # Before the route's stages, because a preflight carries no credential and counts towards no limit.
            if request.method == "OPTIONS" and (response := self._preflight(request)) is not None:
                return response
            # Whatever the route, because what is not read stays in memory.
            return self._counted(request, await handler(request))
        except PulsegateError as error:
            return _error_response(request, error)
        except web.HTTPException as refusal:
            response = _error_response(request, _from_aiohttp(refusal))
            if isinstance(refusal, web.HTTPMethodNotAllowed):
                response.headers["Allow"] = ", ".join(sorted(refusal.allowed_methods))
            return response
        except Exception:  # the edge of the service: the unknown becomes a bland internal error
            log.exception("request failed", method=request.method, path=request.path)
            return _error_response(request, Internal("Something went wrong inside Pulsegate."))

    def _counted(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        """The answer, which counts until its client has read it, where it is large. Raises Unavailable where there is
        too much of these: of reads alone, since what has changed something must not be refused afterwards."""
        size = response.content_length or 0
        if request.method == "GET" and size > _UNCOUNTED_BYTES and HELD not in response:
            self._answers.begin().more(size)
        return response

    def _preflight(self, request: web.Request) -> web.Response | None:
        """Answers what a browser asks before it lets a page of another origin call (CORS, Fetch standard)."""
        refusal = request.match_info.http_exception
        if "Access-Control-Request-Method" not in request.headers or not isinstance(refusal, web.HTTPMethodNotAllowed):
            return None
        origin = request.headers.get(_ORIGIN, "")
        if not request.path.startswith(self._prefixes_for_any_page) and origin.lower() not in self._cors_origins:
            raise errors.origin_not_allowed(origin)
        headers = {
            "Access-Control-Allow-Methods": ", ".join(sorted(refusal.allowed_methods)),
            "Access-Control-Allow-Headers": _ACCEPTED,
            "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
        }
        return web.Response(status=204, headers=headers)

    def _secure(self, request: web.Request, response: web.StreamResponse) -> None:
        """Adds the headers that every answer has; what a handler has set itself stays."""
        headers = response.headers
        headers.merge(_SECURITY_HEADERS)
        headers.extend(request[ADDED_HEADERS])
        headers[_CORRELATION_ID] = context.CORRELATION_ID.get()
        origin = request.headers.get(_ORIGIN)
        if origin or request.path.startswith(BELOW_SDK):  # whose answers caches share between pages
            self._share_with_pages(headers, request.path, origin or "")

    def _share_with_pages(self, headers: "CIMultiDict[str]", path: str, origin: str) -> None:
        if path.startswith(self._prefixes_for_any_page):
            headers["Access-Control-Allow-Origin"] = "*"
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        else:
            headers["Vary"] = "Origin"
            if origin.lower() not in self._cors_origins:
                return
            headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = _EXPOSED

    def _measure(self, method: str, route: str, status: int, took_seconds: float) -> None:
        """Measures the request by its route, never by its path."""
        method = _known_method(method)
        _requests(method, route, status).observe(took_seconds, tracing.exemplar())
        if route not in self._quiet_patterns:
            milliseconds = round(took_seconds * 1000, 1)
            log.info("request served", method=method, route=route, status=status, milliseconds=milliseconds)


def _known_method(method: str) -> str:
    return method if method in _METHODS else "other"


@cache
def _requests(method: str, route: str, status: int) -> Histogram:
    return chassis_metrics.HTTP_REQUESTS.labels(method, route, str(status))


def stages_by_audience(
    authentication: Authentication, limits: Limits, *, once: Stage, changing: Stage, revalidated: Stage
) -> Mapping[Audience, Sequence[Stage]]:
    """What stands before the handlers of a route, the outermost first. The caller is known before their limit is.

    `once` answers again what is sent again, `revalidated` spares what the client has: further in, because both are for
    a caller who may read the answer, and count as calls. `changing` tells the cache of reads: innermost, because what
    is answered again changes nothing.
    """
    return {
        # Static and cheap, and what watches the health of this process must not be turned away.
        Audience.OPEN: [limits.uncounted],
        # Nobody is known here but the address.
        Audience.ANYBODY: [limits.by_address],
        # Guessing passwords must be slow; the account is counted by the handler, which has read its name.
        Audience.SIGN_IN: [limits.signing_in],
        Audience.READ: [admitting(authentication.of_anybody), limits.reads, revalidated],
        Audience.WRITE: [admitting(authentication.of_anybody), limits.writes, once, changing],
        Audience.PROOF: [admitting(authentication.of_anybody), limits.writes],
        Audience.EXPENSIVE: [admitting(authentication.of_anybody), limits.expensive, once, changing],
        Audience.QUERY: [admitting(authentication.of_readers), limits.reads],
        Audience.PROVISIONING: [admitting(authentication.of_providers), limits.provisioning],
        # The hot path: nothing else.
        Audience.INGESTION: [admitting(authentication.of_writers), limits.ingestion],
    }


def admitting(admission: Admission) -> Stage:
    """A stage that says who calls, and lets it be asked anew."""

    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        await admission(request)
        request[ADMISSION] = admission
        return await handler(request)

    return admit


def announcing(deprecation: Deprecation) -> Stage:
    """A stage that tells the users of a route that it goes away (RFC 9745, RFC 8594), with every answer."""
    headers = {
        "Deprecation": f"@{int(deprecation.since.timestamp())}",
        "Sunset": format_datetime(deprecation.sunset.astimezone(UTC), usegmt=True),
        "Link": f'<{deprecation.advice}>; rel="deprecation"',
    }

    async def announce(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[ADDED_HEADERS].update(headers)
        return await handler(request)

    return announce


def through(stages: Sequence[Stage], handler: Handler) -> Handler:
    """A handler behind its stages."""
    for stage in reversed(stages):
        handler = partial(stage, handler=handler)
    return handler


def _error_response(request: web.Request, error: PulsegateError) -> web.Response:
    chassis_metrics.ERRORS.labels(error.code).inc()
    body, content_type = errors.render(error, request.path, request.content_type)
    return web.Response(
        status=error.http_status,
        body=body,
        content_type=content_type,
        headers=errors.headers(error),
    )


def _from_aiohttp(refusal: web.HTTPException) -> PulsegateError:
    if isinstance(refusal, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(f"{refusal.method[:20]} is not possible here.")
    if isinstance(refusal, web.HTTPNotFound):
        return errors.not_found()
    if isinstance(refusal, web.HTTPRequestEntityTooLarge):
        return TooLarge("The body is too large.")
    return Malformed("The request is not valid.")
