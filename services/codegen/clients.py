"""The services that codegen calls."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from chassis import context
from chassis.checked_upstreams import breaker_of
from chassis.errors import DeadlineExceeded, Unavailable
from chassis.grpc_client import ServiceChannel
from contracts.pulsegate.auth.v1 import accounts_pb2, accounts_pb2_grpc, credentials_pb2, credentials_pb2_grpc
from contracts.pulsegate.config.v1 import definitions_pb2, definitions_pb2_grpc
from services.codegen.domain import Definitions, Label, Metric, MetricType

#: A question takes milliseconds: a config that needs so long hangs.
_CONFIG_SECONDS = 2.0
_RESET_SECONDS = 3.0

_TYPES = {
    definitions_pb2.METRIC_TYPE_COUNTER: MetricType.COUNTER,
    definitions_pb2.METRIC_TYPE_GAUGE: MetricType.GAUGE,
    definitions_pb2.METRIC_TYPE_HISTOGRAM: MetricType.HISTOGRAM,
    definitions_pb2.METRIC_TYPE_SUMMARY: MetricType.SUMMARY,
}


class AuthClient:
    """What codegen asks of auth."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._channel = channel
        self._credentials = credentials_pb2_grpc.CredentialServiceStub(channel.grpc_channel)
        self._accounts = accounts_pb2_grpc.AccountServiceStub(channel.grpc_channel)

    async def signing_keys(self) -> str:
        """The public keys that sign principals, as a JWK set."""
        request = credentials_pb2.GetSigningKeysRequest()
        response = await self._channel.call(self._credentials.GetSigningKeys, request)
        return str(response.jwks_json)

    async def deleted_among(self, project_ids: Sequence[str]) -> Collection[str]:
        """See `cleaning.Projects`."""
        request = accounts_pb2.FindDeletedProjectsRequest(project_ids=project_ids)
        response = await self._channel.call(self._accounts.FindDeletedProjects, request)
        return set(response.project_ids)


@dataclass(frozen=True, kw_only=True)
class FetchedDefinitions:
    """What config answered. Decoding is put off: where the client is known already, the digest is all it takes."""

    project_id: str
    metrics: Sequence[definitions_pb2.Metric]
    #: SHA-256 over all of it as it came, 64 hexadecimal digits.
    digest: str

    def decode(self) -> Definitions:
        """Raises DefinitionNotRenderable where a definition cannot be put into code."""
        live = (metric for metric in self.metrics if not metric.HasField("deleted_at"))
        return Definitions.of(self.project_id, _Decoded(sorted(live, key=lambda metric: metric.spec.name)))


@dataclass(frozen=True)
class _Decoded:
    """Definitions, each decoded anew when its turn comes: very many short values take up ten times as much memory."""

    messages: Sequence[definitions_pb2.Metric]

    def __iter__(self) -> Iterator[Metric]:
        return map(_metric, self.messages)


class ConfigClient:
    """What codegen asks of config, which is given a rest where it fails or hangs: nobody's turn is spent on it."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._channel = channel
        self.breaker = breaker_of(channel.service, reset_seconds=_RESET_SECONDS, timeout_seconds=_CONFIG_SECONDS)
        self._feed = definitions_pb2_grpc.DefinitionFeedServiceStub(channel.grpc_channel)

    async def definitions(self, project_id: str) -> FetchedDefinitions:
        """The project's definitions as of now. Raises Unavailable, which says nothing against codegen itself."""
        request = definitions_pb2.GetProjectDefinitionsRequest(project_id=project_id)
        try:
            with self.breaker.guarded():
                response = await self._channel.call(
                    self._feed.GetProjectDefinitions, request, timeout_seconds=context.waiting_seconds(_CONFIG_SECONDS)
                )
        except (Unavailable, DeadlineExceeded) as error:
            raise Unavailable.waiting_for("config", "The metric definitions cannot be read now.", 1.0) from error
        response.ClearField("revision")  # moves with every project's changes
        digest = hashlib.sha256(response.SerializeToString(deterministic=True)).hexdigest()
        return FetchedDefinitions(project_id=project_id, metrics=response.metrics, digest=digest)


def _metric(metric: definitions_pb2.Metric) -> Metric:
    spec = metric.spec
    labels = [
        Label(name=label.name, required=label.required, values=tuple(label.values), pattern=label.pattern)
        for label in spec.labels
    ]
    return Metric(
        id=metric.id,
        name=spec.name,
        type=_TYPES[spec.type],
        help=spec.help,
        unit=spec.unit,
        labels=tuple(labels),
    )
