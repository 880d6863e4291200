"""What the gateway asks config about definitions, and the feed of their changes."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from chassis.grpc_client import ServiceChannel
from contracts.pulsegate.config.v1 import definitions_pb2 as definitions
from contracts.pulsegate.config.v1.definitions_pb2_grpc import DefinitionFeedServiceStub, DefinitionServiceStub
from services.gateway.definition_revisions import DefinitionsChanged
from services.gateway.upstreams import Upstream


class Definitions:
    """config's DefinitionService, for the project of the principal."""

    def __init__(self, config: Upstream) -> None:
        self._config = config
        self._stub = DefinitionServiceStub(config.channel.grpc_channel)

    async def create(self, spec: definitions.MetricSpec) -> definitions.Metric:
        return (await self._config.ask(self._stub.CreateMetric, definitions.CreateMetricRequest(spec=spec))).metric

    async def list(self, page_size: int, page_token: str) -> definitions.ListMetricsResponse:
        request = definitions.ListMetricsRequest(page_size=page_size, page_token=page_token)
        return await self._config.ask_again(self._stub.ListMetrics, request)

    async def get(self, metric_id: str) -> definitions.Metric:
        request = definitions.GetMetricRequest(metric_id=metric_id)
        return (await self._config.ask_again(self._stub.GetMetric, request)).metric

    async def update(self, metric_id: str, spec: definitions.MetricSpec, version: int) -> definitions.Metric:
        request = definitions.UpdateMetricRequest(metric_id=metric_id, spec=spec, version=version)
        return (await self._config.ask(self._stub.UpdateMetric, request)).metric

    async def faults(self, spec: definitions.MetricSpec) -> dict[str, str]:
        """What is wrong with a definition, by member; changes nothing."""
        request = definitions.CheckMetricRequest(spec=spec)
        return dict((await self._config.ask_again(self._stub.CheckMetric, request)).faults)

    async def settings(self) -> definitions.ProjectSettings:
        request = definitions.GetProjectSettingsRequest()
        return (await self._config.ask_again(self._stub.GetProjectSettings, request)).settings

    async def change_settings(self, settings: definitions.ProjectSettings) -> definitions.ProjectSettings:
        request = definitions.UpdateProjectSettingsRequest(settings=settings)
        return (await self._config.ask_again(self._stub.UpdateProjectSettings, request)).settings

    async def delete(self, metric_id: str, version: int) -> None:
        """Version 0: whatever the version is."""
        request = definitions.DeleteMetricRequest(metric_id=metric_id, version=version)
        await self._config.ask(self._stub.DeleteMetric, request)


class ProjectDefinitions:
    """All definitions of the principal's project, for those who may query it: config's DefinitionFeedService, which
    tells a service of a project without asking for a scope, but on somebody's behalf of theirs alone."""

    def __init__(self, config: Upstream) -> None:
        self._config = config
        self._stub = DefinitionFeedServiceStub(config.channel.grpc_channel)

    async def specs(self, project_id: str) -> Sequence[definitions.MetricSpec]:
        """In the order of their creation, without labels."""
        request = definitions.GetProjectDefinitionsRequest(project_id=project_id, without_labels=True)
        found = await self._config.ask_again(self._stub.GetProjectDefinitions, request)
        return [metric.spec for metric in found.metrics]


class DefinitionChanges:
    """See `definition_revisions.DefinitionFeed`: config's DefinitionFeedService, for the gateway itself. Its questions
    open no breaker."""

    def __init__(self, config: ServiceChannel) -> None:
        self._channel = config
        self._stub = DefinitionFeedServiceStub(config.grpc_channel)

    async def newest_revision(self) -> int:
        # An answer about any project has it, also about one that nobody has.
        request = definitions.GetProjectDefinitionsRequest(project_id=str(UUID(int=0)))
        newest: int = (await self._channel.call(self._stub.GetProjectDefinitions, request)).revision
        return newest

    async def watch(self, after_revision: int) -> AsyncIterator[DefinitionsChanged]:
        request = definitions.WatchDefinitionsRequest(after_revision=after_revision)
        async for message in self._channel.stream(self._stub.WatchDefinitions, request):
            yield DefinitionsChanged(
                revision=message.revision,
                project_ids=frozenset(metric.project_id for metric in message.metrics),
                snapshot=message.snapshot,
            )
