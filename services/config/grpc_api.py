"""The service's calls: messages in, one operation, messages out."""

import asyncio
from collections.abc import AsyncIterator, Iterable, MutableSequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import principals
from chassis.errors import NotFound
from chassis.loop_turns import LoopTurns
from chassis.timely_turns import TimelyTurns
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from contracts.pulsegate.config.v1 import definitions_pb2_grpc as pb_grpc
from services.config.auto_definition import PROVISIONAL_HELP, AutoDefinition
from services.config.domain import (
    Actor,
    GaugeMerge,
    Label,
    Metric,
    MetricDraft,
    MetricSpec,
    MetricType,
    ProjectSettings,
)
from services.config.feed import DefinitionFeed
from services.config.operations import Definitions
from services.config.validation import faults

Call = grpc.aio.ServicerContext[Any, Any]

#: At a time: definitions of very many short values take over ten times as much memory while an answer is made of them.
#: A page of a list has 1 MiB of them, a project 8 MiB; services mostly know the project, and are told what changed.
_MOST_LISTING = 4
_MOST_TOLD_PEOPLE = 1
_MOST_TOLD_SERVICES = 2

_TYPES = {
    pb.METRIC_TYPE_COUNTER: MetricType.COUNTER,
    pb.METRIC_TYPE_GAUGE: MetricType.GAUGE,
    pb.METRIC_TYPE_HISTOGRAM: MetricType.HISTOGRAM,
    pb.METRIC_TYPE_SUMMARY: MetricType.SUMMARY,
}
_MERGES = {
    pb.GAUGE_MERGE_LAST: GaugeMerge.LAST,
    pb.GAUGE_MERGE_MIN: GaugeMerge.MIN,
    pb.GAUGE_MERGE_MAX: GaugeMerge.MAX,
    pb.GAUGE_MERGE_SUM: GaugeMerge.SUM,
}
_TYPE_NUMBERS = {metric_type: number for number, metric_type in _TYPES.items()}
_MERGE_NUMBERS = {merge: number for number, merge in _MERGES.items()}


class DefinitionServicer(pb_grpc.DefinitionServiceServicer):
    """Definitions of the principal's project."""

    def __init__(self, definitions: Definitions, auto_definition: AutoDefinition) -> None:
        self._definitions = definitions
        self._auto_definition = auto_definition
        self._listing = TimelyTurns(_MOST_LISTING, "definitions are listed")

    async def CreateMetric(self, request: pb.CreateMetricRequest, _call: Call) -> pb.CreateMetricResponse:  # noqa: N802 - the contract's name
        metric = await self._definitions.create(_actor("config:write"), _draft(request.spec))
        return pb.CreateMetricResponse(metric=_metric(metric))

    async def ListMetrics(self, request: pb.ListMetricsRequest, _call: Call) -> pb.ListMetricsResponse:  # noqa: N802 - the contract's name
        actor = _actor("config:read")
        async with self._listing.one(actor.tenant_id):
            page, next_token = await self._definitions.list_page(actor, request.page_size, request.page_token)
            told = pb.ListMetricsResponse(next_page_token=next_token)
            await _add(page, told.metrics)
        return told

    async def GetMetric(self, request: pb.GetMetricRequest, _call: Call) -> pb.GetMetricResponse:  # noqa: N802 - the contract's name
        metric = await self._definitions.get(_actor("config:read"), request.metric_id)
        return pb.GetMetricResponse(metric=_metric(metric))

    async def UpdateMetric(self, request: pb.UpdateMetricRequest, _call: Call) -> pb.UpdateMetricResponse:  # noqa: N802 - the contract's name
        actor, draft = _actor("config:write"), _draft(request.spec)
        metric = await self._definitions.update(actor, request.metric_id, draft, request.version)
        return pb.UpdateMetricResponse(metric=_metric(metric))

    async def DeleteMetric(self, request: pb.DeleteMetricRequest, _call: Call) -> pb.DeleteMetricResponse:  # noqa: N802 - the contract's name
        await self._definitions.delete(_actor("config:write"), request.metric_id, request.version)
        return pb.DeleteMetricResponse()

    async def CheckMetric(self, request: pb.CheckMetricRequest, _call: Call) -> pb.CheckMetricResponse:  # noqa: N802 - the contract's name
        _actor("config:write")
        return pb.CheckMetricResponse(faults=faults(_draft(request.spec)))

    async def GetProjectSettings(  # noqa: N802 - the contract's name
        self, _request: pb.GetProjectSettingsRequest, _call: Call
    ) -> pb.GetProjectSettingsResponse:
        settings = await self._auto_definition.settings(_actor("config:read"))
        return pb.GetProjectSettingsResponse(settings=_settings(settings))

    async def UpdateProjectSettings(  # noqa: N802 - the contract's name
        self, request: pb.UpdateProjectSettingsRequest, _call: Call
    ) -> pb.UpdateProjectSettingsResponse:
        wanted = ProjectSettings(auto_definition=request.settings.auto_definition)
        # Data that defines does so with any key: this is for those who may make keys.
        settings = await self._auto_definition.change_settings(_actor("keys:write"), wanted)
        return pb.UpdateProjectSettingsResponse(settings=_settings(settings))


class DefinitionFeedServicer(pb_grpc.DefinitionFeedServiceServicer):
    """Definitions of all tenants, for services, which the server has told by their token."""

    def __init__(self, auto_definition: AutoDefinition, feed: DefinitionFeed) -> None:
        self._auto_definition = auto_definition
        self._feed = feed
        self._telling_people = TimelyTurns(_MOST_TOLD_PEOPLE, "definitions are read")
        self._telling_services = asyncio.Semaphore(_MOST_TOLD_SERVICES)

    async def WatchDefinitions(  # noqa: N802 - the contract's name
        self, request: pb.WatchDefinitionsRequest, _call: Call
    ) -> AsyncIterator[pb.WatchDefinitionsResponse]:
        async for message in self._feed.watch(request.after_revision):
            told = pb.WatchDefinitionsResponse(
                revision=message.revision, snapshot=message.snapshot, snapshot_complete=message.snapshot_complete
            )
            await _add(message.metrics, told.metrics)
            yield told

    async def GetProjectDefinitions(  # noqa: N802 - the contract's name
        self, request: pb.GetProjectDefinitionsRequest, _call: Call
    ) -> pb.GetProjectDefinitionsResponse:
        project_id = _project_asked_for(request.project_id)
        async with self._telling():
            page, settings = await self._feed.of_project(
                project_id, request.after_revision, with_labels=not request.without_labels
            )
            told = pb.GetProjectDefinitionsResponse(
                revision=page.revision, settings=_settings(settings), after_revision=page.after_revision
            )
            await _add(page.metrics, told.metrics)
        return told

    async def DefineFromData(  # noqa: N802 - the contract's name
        self, request: pb.DefineFromDataRequest, _call: Call
    ) -> pb.DefineFromDataResponse:
        drafts = [replace(_draft(spec), help=PROVISIONAL_HELP) for spec in request.specs]
        found = await self._auto_definition.define(request.tenant_id, request.project_id, drafts)
        refused = [pb.RefusedSpec(name=name, reason=reason) for name, reason in found.refused.items()]
        return pb.DefineFromDataResponse(made=found.made, refused=refused)

    def _telling(self) -> AbstractAsyncContextManager[None]:
        """People take turns, each tenant in its own; what services ask for themselves, as before each rejection, waits
        for none of these."""
        principal = principals.CURRENT.get()
        return self._telling_services if principal is None else self._telling_people.one(principal.tenant_id)


def _actor(scope: str) -> Actor:
    principal = principals.current_of_project()
    principal.require(scope)
    return Actor(
        tenant_id=principal.tenant_id,
        project_id=principal.project_id,
        subject=principal.subject,
        kind=principal.kind,
    )


def _project_asked_for(project_id: str) -> str:
    """A service may ask about any project, but on somebody's behalf only about theirs."""
    principal = principals.CURRENT.get()
    if principal is None:
        return project_id
    if project_id not in ("", principal.project_id):
        raise NotFound("There is no such project.")
    return principal.project_id


def _draft(spec: pb.MetricSpec) -> MetricDraft:
    return MetricDraft(
        name=spec.name,
        type=_TYPES.get(spec.type),
        unit=spec.unit,
        help=spec.help,
        labels=tuple(_label(label) for label in spec.labels),
        buckets=tuple(spec.buckets),
        objectives=tuple(spec.objectives),
        gauge_merge=_MERGES.get(spec.gauge_merge),
        native_histogram=spec.native_histogram,
    )


def _label(label: pb.Label) -> Label:
    return Label(
        name=label.name,
        required=label.required,
        values=tuple(label.values),
        pattern=label.pattern,
        max_distinct=label.max_distinct,
    )


async def _add(metrics: Iterable[Metric], told: MutableSequence[pb.Metric]) -> None:
    """They may be megabytes: in between whatever else waits has its turn."""
    turns = LoopTurns()
    for metric in metrics:
        told.append(_metric(metric))
        await turns.pause()


def _metric(metric: Metric) -> pb.Metric:
    return pb.Metric(
        id=metric.id,
        tenant_id=metric.tenant_id,
        project_id=metric.project_id,
        spec=_spec(metric.spec),
        version=metric.version,
        created_at=_timestamp(metric.created_at),
        updated_at=_timestamp(metric.updated_at),
        deleted_at=_timestamp(metric.deleted_at) if metric.deleted_at else None,
        provisional=metric.provisional,
    )


def _settings(settings: ProjectSettings) -> pb.ProjectSettings:
    return pb.ProjectSettings(auto_definition=settings.auto_definition)


def _spec(spec: MetricSpec) -> pb.MetricSpec:
    return pb.MetricSpec(
        name=spec.name,
        type=_TYPE_NUMBERS[spec.type],
        unit=spec.unit,
        help=spec.help,
        labels=[
            pb.Label(
                name=label.name,
                required=label.required,
                values=label.values,
                pattern=label.pattern,
                max_distinct=label.max_distinct,
            )
            for label in spec.labels
        ],
        buckets=spec.buckets,
        objectives=spec.objectives,
        gauge_merge=_MERGE_NUMBERS[spec.gauge_merge] if spec.gauge_merge else pb.GAUGE_MERGE_UNSPECIFIED,
        native_histogram=spec.native_histogram,
    )


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
