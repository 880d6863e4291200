"""Prometheus' metadata of metrics, told from the project's definitions: Prometheus' own would name other tenants'."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from aiohttp import web

from chassis.errors import Malformed
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from services.gateway.clients.definitions import ProjectDefinitions
from services.gateway.http_api.bodies import answer
from services.gateway.http_api.definitions import TYPE_NAMES, TypeName
from services.gateway.http_api.shapes import Asked, Told
from services.gateway.routes import CALLER, Audience, Operation, Route


class MetadataWanted(Asked):
    #: "" asks for all.
    metric: str = ""
    #: How many metrics at most; a negative number means all.
    limit: int = -1
    #: Changes nothing: a metric has one definition.
    limit_per_metric: int = msgspec.field(name="limit_per_metric", default=-1)


class Metadata(Told):
    type: TypeName
    help: str
    unit: str


class FoundMetadata(Told):
    """As Prometheus answers (its HTTP API, version 1)."""

    status: Literal["success"]
    #: By the name as defined, without the suffixes of a histogram's or summary's series.
    data: dict[str, list[Metadata]]


class MetadataRoutes:
    """`/prometheus/api/v1/metadata`"""

    title = "Metadata"

    def __init__(self, definitions: ProjectDefinitions) -> None:
        self._definitions = definitions

    def routes(self) -> Sequence[Route]:
        operation = Operation("List the metadata of metrics", {200: FoundMetadata}, query=MetadataWanted)
        return [Route("GET", "/prometheus/api/v1/metadata", self.metadata, Audience.QUERY, operation)]

    async def metadata(self, request: web.Request) -> web.Response:
        wanted, limit = request.query.get("metric"), _number(request, "limit")
        _number(request, "limit_per_metric")
        specs = await self._definitions.specs(request[CALLER].principal.project_id)
        told = [spec for spec in specs if not wanted or spec.name == wanted]
        within = told[:limit] if limit >= 0 else told
        return answer(FoundMetadata("success", {spec.name: [_metadata(spec)] for spec in within}))


def _number(request: web.Request, name: str) -> int:
    """A parameter, -1 where it is left out. Raises Malformed, as Prometheus does, not VALIDATION_FAILED."""
    try:
        return int(request.query.get(name) or -1)
    except ValueError as error:
        raise Malformed(f"The parameter {name} must be a number.") from error


def _metadata(spec: pb.MetricSpec) -> Metadata:
    return Metadata(type=TYPE_NAMES[spec.type], help=spec.help, unit=spec.unit)
