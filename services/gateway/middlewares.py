"""What happens to a request on its way to its handler and back: one list for every request, one for each door."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware
from multidict import CIMultiDict
from opentelemetry.trace import SpanKind

from chassis import context, logs, tracing
from chassis import metrics as chassis_metrics
from chassis.errors import Internal, Malformed, MethodNotAllowed, PulsegateError, TooLarge
from services.gateway import errors
from services.gateway.authentication import Authentication
from services.gateway.limits import Limits
from services.gateway.routes import ADDED_HEADERS, Door, Handler

log = logs.get(__name__)

Stage = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

#: Routes that are not logged one by one.
_QUIET_ROUTES = frozenset({"/api/v1/metrics", "/health/live", "/health/ready", "/health/startup"})

_EXPOSED = "X-Correlation-Id, RateLimit, RateLimit-Policy, Retry-After, ETag, Link, Location, X-Content-Integrity"
_ACCEPTED = (
    "Authorization, Content-Encoding, Content-Type, If-Match, If-None-Match, X-API-Key, X-Correlation-Id, traceparent"
)
_PREFLIGHT_SECONDS = "7200"
#: What pages of any origin may call: a publishable key says which origins may use it.
_FOR_ANY_PAGE = ("/api/v1/metrics", "/sdk/")

_SECURITY_HEADERS = {
    "Server": "pulsegate",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}


def every_request(timeout_seconds: float, cors_origins: frozenset[str]) -> Sequence[Middleware]:
    """The pipeline around everything, the outermost first."""
    return [
        # First, because whatever happens later must be found by its correlation id and end by its deadline.
        partial_middleware(_enter, timeout_seconds=timeout_seconds),
        # Around the answering of errors, because an error's status is measured and traced too.
        web.middleware(_measure),
        # Also around errors, because a page must be able to read them, and a browser must not guess at them.
        partial_middleware(_secure, cors_origins=cors_origins),
        # Innermost but one, because everything within may raise.
        web.middleware(_answer_errors),
        # Before any door, because a preflight carries no credential and counts towards no limit.
        partial_middleware(_answer_preflights, cors_origins=cors_origins),
    ]


def doors(authentication: Authentication, limits: Limits) -> Mapping[Door, Sequence[Stage]]:
    """What stands before the handlers of a route, the outermost first. The caller is known before their limit is."""
    return {
        # Static and cheap, and what watches the health of this process must not be turned away.
        Door.OPEN: [],
        # Nobody is known here but the address.
        Door.ANYBODY: [limits.by_address],
        # Guessing passwords must be slow; the account is counted by the handler, which has read its name.
        Door.SIGN_IN: [limits.signing_in],
        Door.READ: [authentication.of_anybody, limits.reads],
        Door.WRITE: [authentication.of_anybody, limits.writes],
        Door.EXPENSIVE: [authentication.of_anybody, limits.expensive],
        Door.QUERY: [authentication.of_readers, limits.reads],
        # The hot path: nothing else.
        Door.INGESTION: [authentication.of_writers, limits.ingestion],
    }


def through(stages: Sequence[Stage], handler: Handler) -> Handler:
    """A handler behind its stages."""
    for stage in reversed(stages):
        handler = _behind(stage, handler)
    return handler


def _behind(stage: Stage, handler: Handler) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await stage(request, handler)

    return handle


def partial_middleware(middleware: Any, **settings: Any) -> Middleware:
    """A middleware with its settings given."""
    return web.middleware(partial(middleware, **settings))


async def _enter(request: web.Request, handler: Handler, *, timeout_seconds: float) -> web.StreamResponse:
    """Gives the request its correlation id and its deadline, and no identity yet."""
    context.CORRELATION_ID.set(context.correlation_id_or_new(request.headers.get("X-Correlation-Id")))
    context.DEADLINE.set(time.monotonic() + timeout_seconds)
    context.PRINCIPAL_TOKEN.set("")
    request[ADDED_HEADERS] = {}
    return await handler(request)


async def _measure(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Measures the request by its route, never by its path, and traces it."""
    began = time.monotonic()
    method = request.method if request.method in _METHODS else "other"
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    status = 499  # the client went away
    try:
        if tracing.enabled():
            response = await _traced(request, handler, f"{method} {route}")
        else:
            response = await handler(request)
        status = response.status
    finally:
        took = time.monotonic() - began
        chassis_metrics.HTTP_REQUESTS.labels(method, route, str(status)).observe(took)
        if route not in _QUIET_ROUTES:
            log.info("request served", method=method, route=route, status=status, milliseconds=round(took * 1000, 1))
    return response


async def _traced(request: web.Request, handler: Handler, name: str) -> web.StreamResponse:
    carrier = {key: value for key in ("traceparent", "tracestate") if (value := request.headers.get(key))}
    attributes = {"http.request.method": request.method, "url.path": logs.redact_text(request.path)}
    with tracing.span(name, kind=SpanKind.SERVER, carrier=carrier, attributes=attributes) as span:
        response = await handler(request)
        span.set_attribute("http.response.status_code", response.status)
        return response


async def _secure(request: web.Request, handler: Handler, *, cors_origins: frozenset[str]) -> web.StreamResponse:
    """Adds the headers that every answer has; what a handler has set itself stays."""
    response = await handler(request)
    headers = response.headers
    for name, value in _SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    headers.extend(request[ADDED_HEADERS])
    headers["X-Correlation-Id"] = context.CORRELATION_ID.get()
    origin = request.headers.get("Origin")
    if origin or request.path.startswith("/sdk/"):  # whose answers caches share between pages
        _share_with_pages(headers, request.path, origin or "", cors_origins)
    return response


def _share_with_pages(headers: "CIMultiDict[str]", path: str, origin: str, cors_origins: frozenset[str]) -> None:
    if path.startswith(_FOR_ANY_PAGE):
        headers["Access-Control-Allow-Origin"] = "*"
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    else:
        headers["Vary"] = "Origin"
        if origin.lower() not in cors_origins:
            return
        headers["Access-Control-Allow-Origin"] = origin
    headers["Access-Control-Expose-Headers"] = _EXPOSED


async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Makes an answer of whatever is raised: the only place where that happens."""
    try:
        return await handler(request)
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


async def _answer_preflights(
    request: web.Request, handler: Handler, *, cors_origins: frozenset[str]
) -> web.StreamResponse:
    """Answers what a browser asks before it lets a page of another origin call (CORS, Fetch standard)."""
    asked = request.headers.get("Access-Control-Request-Method")
    refusal = request.match_info.http_exception
    if request.method != "OPTIONS" or asked is None or not isinstance(refusal, web.HTTPMethodNotAllowed):
        return await handler(request)
    origin = request.headers.get("Origin", "")
    if not request.path.startswith(_FOR_ANY_PAGE) and origin.lower() not in cors_origins:
        raise errors.origin_not_allowed(origin)
    headers = {
        "Access-Control-Allow-Methods": ", ".join(sorted(refusal.allowed_methods)),
        "Access-Control-Allow-Headers": _ACCEPTED,
        "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
    }
    return web.Response(status=204, headers=headers)


def _error_response(request: web.Request, error: PulsegateError) -> web.Response:
    chassis_metrics.ERRORS.labels(error.code).inc()
    return web.Response(
        status=error.http_status,
        body=errors.render(error, request.path),
        content_type="application/json",
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
