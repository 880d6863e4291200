"""Metric definitions of a project."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from chassis.errors import Malformed, VersionMismatch
from chassis.loop_turns import LoopTurns
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from services.gateway.clients.definitions import Definitions
from services.gateway.http_api.bodies import Asking, Page, Taking, answer, etag_of, moment, no_content, path_id
from services.gateway.http_api.shapes import Asked, Faults, Id, Moment, Told
from services.gateway.kept_reads import KeptReads, Rendered
from services.gateway.routes import CALLER, Audience, Header, Operation, Route

TypeName = Literal["counter", "gauge", "histogram", "summary"]
MergeName = Literal["last", "min", "max", "sum"]

_TYPES: Mapping[TypeName, "pb.MetricType.ValueType"] = {
    "counter": pb.METRIC_TYPE_COUNTER,
    "gauge": pb.METRIC_TYPE_GAUGE,
    "histogram": pb.METRIC_TYPE_HISTOGRAM,
    "summary": pb.METRIC_TYPE_SUMMARY,
}
TYPE_NAMES: Mapping[int, TypeName] = {value: name for name, value in _TYPES.items()}
_MERGES: Mapping[MergeName, "pb.GaugeMerge.ValueType"] = {
    "last": pb.GAUGE_MERGE_LAST,
    "min": pb.GAUGE_MERGE_MIN,
    "max": pb.GAUGE_MERGE_MAX,
    "sum": pb.GAUGE_MERGE_SUM,
}
_MERGE_NAMES = {value: name for name, value in _MERGES.items()}

#: Several labels may list a thousand values each.
_MOST_BYTES_OF_DEFINITION = 256 << 10

_IF_MATCH = 'The version that was read, such as "3".'
_ETAG = re.compile(r'"([1-9]\d{0,17})"')


class NewLabel(Asked):
    name: str
    required: bool = False
    values: list[str] = msgspec.field(default_factory=list)
    #: RE2, which a value matches as a whole.
    pattern: str = ""
    #: 0: no limit of its own.
    max_distinct: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0


class NewMetric(Asked):
    name: str
    type: TypeName
    help: str
    unit: str = ""
    labels: list[NewLabel] = msgspec.field(default_factory=list)
    #: Of a histogram.
    buckets: list[float] = msgspec.field(default_factory=list)
    #: Of a summary.
    objectives: list[float] = msgspec.field(default_factory=list)
    #: Of a gauge.
    gauge_merge: MergeName | None = None
    native_histogram: bool = False


class Label(Told):
    name: str
    required: bool
    values: list[str]
    pattern: str
    max_distinct: int


class Metric(Told):
    id: Id
    name: str
    type: TypeName
    unit: str
    help: str
    labels: list[Label]
    buckets: list[float]
    objectives: list[float]
    gauge_merge: MergeName | None
    native_histogram: bool
    #: Whether it was made of what a client sent.
    provisional: bool
    version: int
    created_at: Moment
    updated_at: Moment


class Metrics(Told):
    items: list[Metric]
    next_page_token: str


class DefinitionRoutes:
    """`/api/v1/projects/{projectId}/metrics`"""

    title = "Metric definitions"

    def __init__(self, definitions: Definitions, kept: KeptReads) -> None:
        self._definitions = definitions
        self._kept = kept

    def routes(self) -> Sequence[Route]:
        metrics = "/api/v1/projects/{projectId}/metrics"
        metric = metrics + "/{metricId}"
        versioned = ("ETag",)
        return [
            Route("GET", metrics, Asking(Page, self.list), Audience.READ, Operation("List metrics", {200: Metrics})),
            Route(
                "POST",
                metrics,
                self._taking(self.create),
                Audience.WRITE,
                Operation("Define a metric", {201: Metric}, answer_headers=("ETag", "Location"), errors=(409,)),
            ),
            Route(
                "GET",
                metric,
                self.get,
                Audience.READ,
                Operation("Show a metric", {200: Metric}, answer_headers=versioned),
            ),
            Route(
                "PUT",
                metric,
                self._taking(self.update),
                Audience.WRITE,
                Operation(
                    "Change a metric",
                    {200: Metric},
                    headers=(Header("If-Match", _IF_MATCH, required=True),),
                    answer_headers=versioned,
                    errors=(409, 412),
                ),
            ),
            Route(
                "DELETE",
                metric,
                self.delete,
                Audience.WRITE,
                Operation("Delete a metric", {204: None}, headers=(Header("If-Match", _IF_MATCH),), errors=(412,)),
            ),
        ]

    def _taking(self, handler: Callable[[web.Request, NewMetric], Awaitable[web.Response]]) -> Taking[NewMetric]:
        return Taking(
            NewMetric, handler, self._further_faults, scope="config:write", most_bytes=_MOST_BYTES_OF_DEFINITION
        )

    async def list(self, request: web.Request, page: Page) -> web.Response:
        reader = request[CALLER].principal
        return _kept_answer(await self._kept.metrics(reader, page.page_size, page.page_token, _page))

    async def create(self, request: web.Request, new: NewMetric) -> web.Response:
        metric = await self._definitions.create(_spec(new))
        return _answer(metric, status=201, headers={"Location": f"{request.path}/{metric.id}"})

    async def get(self, request: web.Request) -> web.Response:
        reader = request[CALLER].principal
        return _kept_answer(await self._kept.metric(reader, path_id(request, "metricId"), _one))

    async def update(self, request: web.Request, new: NewMetric) -> web.Response:
        metric_id, version = path_id(request, "metricId"), _version(request)
        if version is None:
            raise Malformed('Send the version that you have read as If-Match: "<version>".')
        return _answer(await self._definitions.update(metric_id, _spec(new), version))

    async def delete(self, request: web.Request) -> web.Response:
        await self._definitions.delete(path_id(request, "metricId"), _version(request) or 0)
        return no_content()

    async def _further_faults(self, new: NewMetric) -> Faults:
        """What config finds."""
        return await self._definitions.faults(_spec(new))


def _version(request: web.Request) -> int | None:
    """The version named by If-Match, None where there is no such header."""
    header = request.headers.get("If-Match")
    if header is None:
        return None
    match = _ETAG.fullmatch(header.strip())
    if match is None:
        raise VersionMismatch('If-Match must be the version that you have read, such as "3".')
    return int(match[1])


def _spec(definition: NewMetric) -> pb.MetricSpec:
    return pb.MetricSpec(
        name=definition.name,
        type=_TYPES.get(definition.type, pb.METRIC_TYPE_UNSPECIFIED),
        unit=definition.unit,
        help=definition.help,
        labels=[
            pb.Label(
                name=label.name,
                required=label.required,
                values=label.values,
                pattern=label.pattern,
                max_distinct=label.max_distinct,
            )
            for label in definition.labels
        ],
        buckets=definition.buckets,
        objectives=definition.objectives,
        gauge_merge=_MERGES[definition.gauge_merge] if definition.gauge_merge else pb.GAUGE_MERGE_UNSPECIFIED,
        native_histogram=definition.native_histogram,
    )


def _answer(metric: pb.Metric, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return answer(_render(metric), status=status, headers={"ETag": _etag(metric), **(headers or {})})


def _etag(metric: pb.Metric) -> str:
    return f'"{metric.version}"'


def _kept_answer(kept: Rendered) -> web.Response:
    return web.Response(body=kept.body, content_type="application/json", headers={"ETag": kept.etag})


def _one(metric: pb.Metric) -> Rendered:
    return Rendered(_etag(metric), msgspec.json.encode(_render(metric)))


async def _page(found: pb.ListMetricsResponse) -> Rendered:
    """They may be megabytes: in between whatever else waits has its turn."""
    items, turns = [], LoopTurns()
    for metric in found.metrics:
        items.append(_render(metric))
        await turns.pause()
    body = msgspec.json.encode(Metrics(items, found.next_page_token))
    return Rendered(etag_of(body), body)


def _render(metric: pb.Metric) -> Metric:
    spec = metric.spec
    return Metric(
        id=metric.id,
        name=spec.name,
        type=TYPE_NAMES[spec.type],
        unit=spec.unit,
        help=spec.help,
        labels=[_render_label(label) for label in spec.labels],
        buckets=list(spec.buckets),
        objectives=list(spec.objectives),
        gauge_merge=_MERGE_NAMES.get(spec.gauge_merge),
        native_histogram=spec.native_histogram,
        provisional=metric.provisional,
        version=metric.version,
        created_at=moment(metric.created_at),
        updated_at=moment(metric.updated_at),
    )


def _render_label(label: pb.Label) -> Label:
    return Label(
        name=label.name,
        required=label.required,
        values=list(label.values),
        pattern=label.pattern,
        max_distinct=label.max_distinct,
    )
