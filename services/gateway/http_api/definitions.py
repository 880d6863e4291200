"""Metric definitions of a project."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from chassis.errors import Invalid, Malformed, VersionMismatch
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from services.gateway.clients import Definitions
from services.gateway.http_api.bodies import answer, listed, moment, no_content, page, parse_with_faults, path_id
from services.gateway.routes import Door, Route

TypeName = Literal["counter", "gauge", "histogram", "summary"]
MergeName = Literal["last", "min", "max", "sum"]

_TYPES: Mapping[TypeName, "pb.MetricType.ValueType"] = {
    "counter": pb.METRIC_TYPE_COUNTER,
    "gauge": pb.METRIC_TYPE_GAUGE,
    "histogram": pb.METRIC_TYPE_HISTOGRAM,
    "summary": pb.METRIC_TYPE_SUMMARY,
}
_TYPE_NAMES = {value: name for name, value in _TYPES.items()}
_MERGES: Mapping[MergeName, "pb.GaugeMerge.ValueType"] = {
    "last": pb.GAUGE_MERGE_LAST,
    "min": pb.GAUGE_MERGE_MIN,
    "max": pb.GAUGE_MERGE_MAX,
    "sum": pb.GAUGE_MERGE_SUM,
}
_MERGE_NAMES = {value: name for name, value in _MERGES.items()}

_ETAG = re.compile(r'"([1-9]\d{0,17})"')


class Label(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    required: bool = False
    values: list[str] = []
    pattern: str = ""
    max_distinct: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = msgspec.field(name="maxDistinct", default=0)


class Definition(msgspec.Struct):
    name: str
    type: TypeName
    help: str
    unit: str = ""
    labels: list[Label] = []
    buckets: list[float] = []
    objectives: list[float] = []
    gauge_merge: MergeName | None = msgspec.field(name="gaugeMerge", default=None)
    native_histogram: bool = msgspec.field(name="nativeHistogram", default=False)


class DefinitionRoutes:
    """`/api/v1/projects/{projectId}/metrics`"""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def routes(self) -> Sequence[Route]:
        metrics = "/api/v1/projects/{projectId}/metrics"
        return [
            Route("GET", metrics, self.list, Door.READ),
            Route("POST", metrics, self.create, Door.WRITE),
            Route("GET", metrics + "/{metricId}", self.get, Door.READ),
            Route("PUT", metrics + "/{metricId}", self.update, Door.WRITE),
            Route("DELETE", metrics + "/{metricId}", self.delete, Door.WRITE),
        ]

    async def list(self, request: web.Request) -> web.Response:
        found = await self._definitions.list(*page(request))
        return listed([_render(metric) for metric in found.metrics], found.next_page_token)

    async def create(self, request: web.Request) -> web.Response:
        metric = await self._definitions.create(await self._spec_in(request))
        return _answer(metric, status=201, headers={"Location": f"{request.path}/{metric.id}"})

    async def get(self, request: web.Request) -> web.Response:
        return _answer(await self._definitions.get(path_id(request, "metricId")))

    async def update(self, request: web.Request) -> web.Response:
        metric_id, version = path_id(request, "metricId"), _version(request)
        if version is None:
            raise Malformed('Send the version that you have read as If-Match: "<version>".')
        return _answer(await self._definitions.update(metric_id, await self._spec_in(request), version))

    async def delete(self, request: web.Request) -> web.Response:
        await self._definitions.delete(path_id(request, "metricId"), _version(request) or 0)
        return no_content()

    async def _spec_in(self, request: web.Request) -> pb.MetricSpec:
        """The definition in the body. Raises VALIDATION_FAILED with all that is wrong, also what config finds."""
        definition, faults = await parse_with_faults(request, Definition)
        spec = _spec(definition)
        if faults:
            raise Invalid.fields({**await self._definitions.faults(spec), **faults})
        return spec


def _version(request: web.Request) -> int | None:
    """The version named by If-Match, None where there is no such header."""
    header = request.headers.get("If-Match")
    if header is None:
        return None
    match = _ETAG.fullmatch(header.strip())
    if match is None:
        raise VersionMismatch('If-Match must be the version that you have read, such as "3".')
    return int(match[1])


def _spec(definition: Definition) -> pb.MetricSpec:
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
    return answer(_render(metric), status=status, headers={"ETag": f'"{metric.version}"', **(headers or {})})


def _render(metric: pb.Metric) -> dict[str, Any]:
    spec = metric.spec
    return {
        "id": metric.id,
        "name": spec.name,
        "type": _TYPE_NAMES.get(spec.type, ""),
        "unit": spec.unit,
        "help": spec.help,
        "labels": [_render_label(label) for label in spec.labels],
        "buckets": list(spec.buckets),
        "objectives": list(spec.objectives),
        "gaugeMerge": _MERGE_NAMES.get(spec.gauge_merge),
        "nativeHistogram": spec.native_histogram,
        "provisional": metric.provisional,
        "version": metric.version,
        "createdAt": moment(metric.created_at),
        "updatedAt": moment(metric.updated_at),
    }


def _render_label(label: pb.Label) -> dict[str, Any]:
    return {
        "name": label.name,
        "required": label.required,
        "values": list(label.values),
        "pattern": label.pattern,
        "maxDistinct": label.max_distinct,
    }
