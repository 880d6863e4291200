"""The services that ingestion calls: auth for its public keys, config for definitions."""

import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chassis.grpc_client import ServiceChannel
from contracts.pulsegate.auth.v1 import credentials_pb2, credentials_pb2_grpc
from contracts.pulsegate.config.v1 import definitions_pb2, definitions_pb2_grpc
from services.ingest.allowed_values import AllowedValues
from services.ingest.domain import Definition, GaugeMerge, LabelRule, MetricType


@dataclass(frozen=True, slots=True)
class DefinitionChange:
    """A definition that came or changed, or was deleted."""

    definition: Definition
    deleted: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class DefinitionUpdate:
    """One message of the feed; see `WatchDefinitionsResponse`."""

    revision: int
    changes: Sequence[DefinitionChange]
    snapshot: bool
    snapshot_complete: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectDefinitions:
    """What changed in a project up to a revision."""

    revision: int
    changes: Sequence[DefinitionChange]
    #: These are all definitions that there are.
    snapshot: bool
    #: Data under an unknown name may define it.
    lets_data_define: bool = False


@dataclass(frozen=True, slots=True)
class Provisional:
    """A definition that data asks for."""

    name: str
    type: MetricType
    #: Names of labels, in order.
    labels: dict[str, None]
    #: A classic histogram's upper bounds; empty: the usual ones.
    bounds: tuple[float, ...]


class DefinitionClient(Protocol):
    """What the definition table asks of config. Every method raises PulsegateError where config is away."""

    def watch(self, after_revision: int) -> AsyncIterator[DefinitionUpdate]: ...

    async def read_project(self, project_id: bytes, after_revision: int) -> ProjectDefinitions: ...


class DefiningClient(Protocol):
    """What makes definitions of data; raises PulsegateError where config is away."""

    async def define(self, tenant_id: bytes, project_id: bytes, wanted: Sequence[Provisional]) -> Mapping[str, str]: ...


_TYPES = {
    MetricType.COUNTER: definitions_pb2.METRIC_TYPE_COUNTER,
    MetricType.GAUGE: definitions_pb2.METRIC_TYPE_GAUGE,
    MetricType.HISTOGRAM: definitions_pb2.METRIC_TYPE_HISTOGRAM,
    MetricType.SUMMARY: definitions_pb2.METRIC_TYPE_SUMMARY,
    MetricType.NATIVE_HISTOGRAM: definitions_pb2.METRIC_TYPE_HISTOGRAM,
}


class ConfigClient:
    """Config over gRPC."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._channel = channel
        self._stub = definitions_pb2_grpc.DefinitionFeedServiceStub(channel.grpc_channel)

    async def watch(self, after_revision: int) -> AsyncIterator[DefinitionUpdate]:
        """The feed after a revision; 0: from a snapshot."""
        request = definitions_pb2.WatchDefinitionsRequest(after_revision=after_revision)
        async for message in self._channel.stream(self._stub.WatchDefinitions, request):
            yield DefinitionUpdate(
                revision=message.revision,
                changes=_changes(message.metrics),
                snapshot=message.snapshot,
                snapshot_complete=message.snapshot_complete,
            )

    async def read_project(self, project_id: bytes, after_revision: int) -> ProjectDefinitions:
        """What changed in a project after a revision, as of now; a snapshot where config does not tell that."""
        request = definitions_pb2.GetProjectDefinitionsRequest(
            project_id=str(uuid.UUID(bytes=project_id)), after_revision=after_revision
        )
        response = await self._channel.call(self._stub.GetProjectDefinitions, request, timeout_seconds=2.0)
        return ProjectDefinitions(
            revision=response.revision,
            changes=_changes(response.metrics),
            snapshot=not response.after_revision,
            lets_data_define=response.settings.auto_definition,
        )

    async def define(self, tenant_id: bytes, project_id: bytes, wanted: Sequence[Provisional]) -> Mapping[str, str]:
        """Has config make as many of these as are valid and within its limits. By name, why the others are not."""
        request = definitions_pb2.DefineFromDataRequest(
            tenant_id=str(uuid.UUID(bytes=tenant_id)),
            project_id=str(uuid.UUID(bytes=project_id)),
            specs=[_spec(each) for each in wanted],
        )
        response = await self._channel.call(self._stub.DefineFromData, request, timeout_seconds=2.0)
        return {spec.name: spec.reason for spec in response.refused}


class AuthClient:
    """Auth over gRPC."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._channel = channel
        self._stub = credentials_pb2_grpc.CredentialServiceStub(channel.grpc_channel)

    async def signing_keys(self) -> str:
        """The public keys that sign principals, as a JWK set."""
        response = await self._channel.call(self._stub.GetSigningKeys, credentials_pb2.GetSigningKeysRequest())
        return str(response.jwks_json)


def _spec(wanted: Provisional) -> definitions_pb2.MetricSpec:
    return definitions_pb2.MetricSpec(
        name=wanted.name,
        type=_TYPES[wanted.type],
        labels=[definitions_pb2.Label(name=name) for name in wanted.labels],
        buckets=wanted.bounds,
        native_histogram=wanted.type is MetricType.NATIVE_HISTOGRAM,
    )


def _changes(metrics: Iterable[definitions_pb2.Metric]) -> list[DefinitionChange]:
    return [DefinitionChange(_definition(metric), metric.HasField("deleted_at")) for metric in metrics]


def _definition(metric: definitions_pb2.Metric) -> Definition:
    spec = metric.spec
    return Definition(
        id=uuid.UUID(metric.id).bytes,
        tenant_id=uuid.UUID(metric.tenant_id).bytes,
        project_id=uuid.UUID(metric.project_id).bytes,
        name=spec.name,
        type=MetricType.NATIVE_HISTOGRAM if spec.native_histogram else MetricType(spec.type),
        bounds=tuple(spec.buckets) if spec.type == definitions_pb2.METRIC_TYPE_HISTOGRAM else (),
        labels={
            label.name: LabelRule(
                required=label.required,
                values=AllowedValues.of(label.values) if label.values else None,
                pattern=label.pattern,
                max_distinct=label.max_distinct,
            )
            for label in spec.labels
        },
        version=metric.version,
        gauge_merge=GaugeMerge(spec.gauge_merge or GaugeMerge.LAST),
        objectives=tuple(spec.objectives) if spec.type == definitions_pb2.METRIC_TYPE_SUMMARY else (),
    )
