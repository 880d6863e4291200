"""Prometheus' query API for one project: every selector gets the project's matchers before Prometheus sees it."""

import asyncio
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import parse_qsl, quote

import msgspec
from aiohttp import web

from chassis.errors import Malformed, Unavailable, UnsupportedMediaType
from services.gateway import promql
from services.gateway.clients.prometheus import Parameters, Prometheus
from services.gateway.http_api.bodies import read
from services.gateway.http_api.shapes import Asked, Told
from services.gateway.promql import Scope
from services.gateway.routes import CALLER, ENDS_WITH_CLIENT, HELD, Audience, Handler, Media, Operation, Route

_MOST_PARAMETERS = 100

#: Parameters that are passed on as they are; they name no series.
_PASSED_ON = ("time", "start", "end", "step", "limit", "stats", "lookback_delta")

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,199}")


class Found(Told, omit_defaults=True):
    """As Prometheus answers (its HTTP API, version 1)."""

    status: Literal["success"]
    data: Any
    warnings: list[str] = msgspec.field(default_factory=list)
    infos: list[str] = msgspec.field(default_factory=list)


class Selection(Asked):
    match: list[str] = msgspec.field(name="match[]", default_factory=list)
    start: str = ""
    end: str = ""
    limit: str = ""


class Series(Selection):
    match: list[str] = msgspec.field(name="match[]")


class Instant(Asked):
    #: PromQL.
    query: str
    time: str = ""
    timeout: str = ""
    limit: str = ""
    stats: str = ""
    lookback_delta: str = msgspec.field(name="lookback_delta", default="")


class Range(Asked):
    #: PromQL.
    query: str
    start: str
    end: str
    step: str
    timeout: str = ""
    limit: str = ""
    stats: str = ""
    lookback_delta: str = msgspec.field(name="lookback_delta", default="")


class Formatted(Told):
    status: Literal["success"]
    #: PromQL.
    data: str


class Expression(Asked):
    #: PromQL.
    query: str


class Exemplars(Asked):
    #: PromQL.
    query: str
    start: str
    end: str


class QueryRoutes:
    """`/prometheus/api/v1/…`"""

    title = "Queries"

    def __init__(self, prometheus: Prometheus | None, *, timeout_seconds: float) -> None:
        self._prometheus = prometheus
        #: Less, so that Prometheus says itself of a query that takes too long.
        self._evaluation_seconds = 0.9 * timeout_seconds

    def routes(self) -> Sequence[Route]:
        below = "/prometheus/api/v1"
        routes = [(name, *described, method) for name, described in self._described().items() for method in _METHODS]
        return [
            *(
                Route(method, f"{below}/{name}", handler, Audience.QUERY, _operation(summary, parameters, method))
                for name, handler, summary, parameters, method in routes
            ),
            *(self._formatting(method) for method in _METHODS),
            Route(
                "GET",
                f"{below}/label/{{name}}/values",
                self.label_values,
                Audience.QUERY,
                Operation("List the values of a label", {200: Found}, query=Selection, errors=_ERRORS),
            ),
        ]

    def _formatting(self, method: str) -> Route:
        operation = _operation("Format an expression", Expression, method, Formatted)
        return Route(method, "/prometheus/api/v1/format_query", self.format_query, Audience.QUERY, operation)

    def _described(self) -> dict[str, tuple[Handler, str, type[Asked]]]:
        return {
            "query": (self.query, "Query at one moment", Instant),
            "query_range": (self.query, "Query over a range", Range),
            "query_exemplars": (self.query, "Query exemplars", Exemplars),
            "series": (self.series, "List series", Series),
            "labels": (self.labels, "List labels", Selection),
        }

    async def query(self, request: web.Request) -> web.Response:
        """`query`, `query_range` and `query_exemplars`."""
        parameters = await _parameters(request)
        restricted = promql.restrict(_expression(parameters), _scope(request))
        timeout = self._timeout(_first(parameters, "timeout"))
        passed_on = [*_passed_on(parameters), ("query", restricted), ("timeout", f"{timeout * 1000:.0f}ms")]
        return await self._post(request, request.path.rpartition("/")[2], passed_on)

    async def format_query(self, request: web.Request) -> web.Response:
        """Reads no series, so it takes the expression as it is."""
        expression = _expression(await _parameters(request))
        promql.refuse_oversized(expression)
        return await self._post(request, "format_query", [("query", expression)])

    async def series(self, request: web.Request) -> web.Response:
        parameters = await _parameters(request)
        if not any(name == "match[]" for name, _ in parameters):
            raise Malformed("The parameter match[] is missing.")
        return await self._post(request, "series", [*_passed_on(parameters), *_matches(parameters, _scope(request))])

    async def labels(self, request: web.Request) -> web.Response:
        parameters = await _parameters(request)
        return await self._post(request, "labels", [*_passed_on(parameters), *_matches(parameters, _scope(request))])

    async def label_values(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if not _LABEL_NAME.fullmatch(name):
            raise Malformed(f"{name[:100]!r} is not the name of a label.")
        parameters = await _parameters(request)
        passed_on = [*_passed_on(parameters), *_matches(parameters, _scope(request))]
        status, body = await self._reachable(request).get(f"label/{quote(name)}/values", passed_on)
        return _answer(status, body)

    async def _post(self, request: web.Request, path: str, parameters: Parameters) -> web.Response:
        status, body = await self._reachable(request).post(path, parameters)
        return _answer(status, body)

    def _reachable(self, request: web.Request) -> Prometheus:
        """For the rest of a request that ends with its client: neither a turn nor Prometheus is kept for nobody."""
        if self._prometheus is None:
            raise Unavailable("Queries need PULSEGATE_PROMETHEUS_URL, which is not set.", retry_after_seconds=60)
        request[ENDS_WITH_CLIENT] = True
        if request.transport is None:
            raise asyncio.CancelledError("the client left before this request was known to end with it")
        return self._prometheus

    def _timeout(self, asked: str | None) -> float:
        """How long Prometheus may work on a query, in seconds: what is asked for, within the limit."""
        if not asked:
            return self._evaluation_seconds
        try:
            seconds = float(asked) if asked[-1].isdigit() else promql.seconds(asked)
        except ValueError as error:
            raise Malformed("The parameter timeout is no duration.") from error
        return min(seconds, self._evaluation_seconds) if seconds > 0 else self._evaluation_seconds


_METHODS = ("GET", "POST")


#: Prometheus' own: of an expression that cannot be evaluated.
_ERRORS = (422,)
_FORM = "application/x-www-form-urlencoded"


def _operation(summary: str, parameters: type[Asked], method: str, found: type[Told] = Found) -> Operation:
    if method == "GET":
        return Operation(summary, {200: found}, query=parameters, errors=_ERRORS)
    form = Media((_FORM,), parameters)
    return Operation(f"{summary}, by form", {200: found}, body=form, errors=_ERRORS)


def _scope(request: web.Request) -> Scope:
    principal = request[CALLER].principal
    return Scope(tenant_id=principal.tenant_id, project_id=principal.project_id)


async def _parameters(request: web.Request) -> Parameters:
    """Those of the form, if there is one, then those of the address."""
    named = list(request.query.items())
    if request.method == "POST" and request.can_read_body:
        if request.content_type != _FORM:
            raise UnsupportedMediaType("Send the parameters as application/x-www-form-urlencoded.")
        try:
            form = parse_qsl(
                (await read(request)).decode("utf-8"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_MOST_PARAMETERS,
            )
        except ValueError as error:
            raise Malformed("The form cannot be read.") from error
        named = [*form, *named]
    if len(named) > _MOST_PARAMETERS:
        raise Malformed(f"A query may have {_MOST_PARAMETERS} parameters.")
    return named


def _first(parameters: Parameters, wanted: str) -> str | None:
    return next((value for name, value in parameters if name == wanted), None)


def _expression(parameters: Parameters) -> str:
    expression = _first(parameters, "query")
    if not expression:
        raise Malformed("The parameter query is missing.")
    return expression


def _passed_on(parameters: Parameters) -> list[tuple[str, str]]:
    return [(name, value) for name in _PASSED_ON if (value := _first(parameters, name)) is not None]


def _matches(parameters: Parameters, scope: Scope) -> list[tuple[str, str]]:
    """Each `match[]` within the scope; all of the scope's series where there is none."""
    asked = [value for name, value in parameters if name == "match[]"]
    promql.refuse_oversized(*asked)
    selectors = [promql.restrict_selector(selector, scope) for selector in asked]
    return [("match[]", selector) for selector in selectors or [scope.selector]]


def _answer(status: int, body: bytes) -> web.Response:
    headers = {"Retry-After": "2"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    response = web.Response(status=status, body=body, content_type="application/json", headers=headers)
    response[HELD] = True
    return response
