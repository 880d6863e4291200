"""The services that ingestion calls: auth for its public keys, config for definitions."""

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from chassis.grpc_client import ServiceChannel
from contracts.pulsegate.auth.v1 import credentials_pb2, credentials_pb2_grpc
from contracts.pulsegate.config.v1 import definitions_pb2, definitions_pb2_grpc
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


class DefinitionClient(Protocol):
    """What the definition table asks of config. Every method raises PulsegateError where config is away."""

    def watch(self, after_revision: int) -> AsyncIterator[DefinitionUpdate]: ...

    async def read_project(self, project_id: bytes) -> tuple[int, Sequence[Definition]]: ...


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
                changes=[
                    DefinitionChange(_definition(metric), metric.HasField("deleted_at")) for metric in message.metrics
                ],
                snapshot=message.snapshot,
                snapshot_complete=message.snapshot_complete,
            )

    async def read_project(self, project_id: bytes) -> tuple[int, Sequence[Definition]]:
        """A project's definitions as of now, and the revision of that now."""
        request = definitions_pb2.GetProjectDefinitionsRequest(project_id=str(uuid.UUID(bytes=project_id)))
        response = await self._channel.call(self._stub.GetProjectDefinitions, request, timeout_seconds=2.0)
        return response.revision, [_definition(metric) for metric in response.metrics]


class AuthClient:
    """Auth over gRPC."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._channel = channel
        self._stub = credentials_pb2_grpc.CredentialServiceStub(channel.grpc_channel)

    async def signing_keys(self) -> str:
        """The public keys that sign principals, as a JWK set."""
        response = await self._channel.call(self._stub.GetSigningKeys, credentials_pb2.GetSigningKeysRequest())
        return str(response.jwks_json)


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
                values=frozenset(label.values) or None,
                pattern=label.pattern,
                max_distinct=label.max_distinct,
            )
            for label in spec.labels
        },
        version=metric.version,
        gauge_merge=GaugeMerge(spec.gauge_merge or GaugeMerge.LAST),
        objectives=tuple(spec.objectives) if spec.type == definitions_pb2.METRIC_TYPE_SUMMARY else (),
    )
