"""The composition root of the config service."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from chassis import grpc_client, grpc_server, http_server, mutual_tls, postgres
from chassis.health import Health
from chassis.migrations import schema_probe
from chassis.principals import PrincipalVerifier
from chassis.timely_turns import TimelyTurns
from contracts.pulsegate.config.v1 import definitions_pb2_grpc
from services.config import metrics
from services.config.audit import AuditSender, AuditTrail
from services.config.audit_storage import AuditOutboxStorage
from services.config.auto_definition import AutoDefinition
from services.config.callers import CALLERS
from services.config.clients import AuthClient
from services.config.deleted_projects import DeletedProjects
from services.config.domain import Limits
from services.config.feed import DefinitionFeed
from services.config.grpc_api import DefinitionFeedServicer, DefinitionServicer
from services.config.operations import Definitions
from services.config.settings import Settings
from services.config.storage import DefinitionStorage

MIGRATIONS = Path(__file__).parent / "migrations"

#: Of ten connections, those that changes may have: each waits with one until those before it have ended. Two a tenant.
_MOST_CHANGES = 4
_CHANGES_OF_TENANT = 2
#: One polls, with two services are answered about projects, with one people; the feed does the rest with what is free.
_FEED_CONNECTIONS = 4


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    """The service, from its database to its port, while open."""
    async with AsyncExitStack() as stack:
        health = Health()
        tls = await stack.enter_async_context(mutual_tls.kept_fresh(settings.mutual_tls()))

        database = await stack.enter_async_context(postgres.connected(settings.following("dsn")))
        health.add("postgres", schema_probe(database, MIGRATIONS), hard=True)

        # Connections of its own: however many people ask, services learn of changes, and what data means.
        for_feed = await stack.enter_async_context(
            postgres.connected(settings.following("dsn"), pool_name="feed", most_connections=_FEED_CONNECTIONS)
        )

        auth = await stack.enter_async_context(
            grpc_client.connected("auth", settings.auth_address, settings.following("service_token"), tls=tls)
        )
        health.add("auth", auth.probe, hard=False)

        storage = DefinitionStorage()
        outbox, auth_client = AuditOutboxStorage(), AuthClient(auth)
        trail = AuditTrail(outbox)
        limits = Limits(metrics_per_project=settings.most_metrics_per_project, all_bytes=settings.most_definition_bytes)
        metrics.DEFINITION_BYTES_LIMIT.set(limits.all_bytes)
        turns = TimelyTurns(_MOST_CHANGES, "definitions are changed", least=_CHANGES_OF_TENANT)
        definitions = Definitions(database, storage, trail, limits, turns)
        auto_definition = AutoDefinition(database, storage, trail, limits, turns)
        feed = DefinitionFeed(for_feed, storage)
        deleted_projects = DeletedProjects(database, storage, definitions, auth_client)

        await stack.enter_async_context(AuditSender(database, outbox, auth_client).sending())
        await stack.enter_async_context(deleted_projects.forgetting())
        await stack.enter_async_context(health.watching())
        await stack.enter_async_context(http_server.serving_operations(settings.host, settings.operations_port, health))
        await stack.enter_async_context(feed.polling())
        await stack.enter_async_context(
            grpc_server.serving(
                settings.host,
                settings.grpc_port,
                _registrations(
                    DefinitionServicer(definitions, auto_definition),
                    DefinitionFeedServicer(auto_definition, feed),
                ),
                callers=CALLERS,
                service_token=settings.following("service_token"),
                verifier=PrincipalVerifier(auth_client.signing_keys),
                process_health=health,
                tls=tls,
                drain_seconds=settings.drain_seconds,
            )
        )
        try:
            yield
        finally:
            health.stopping = True
            feed.stop()  # watches never end by themselves, so the server could not drain


def _registrations(
    definitions: DefinitionServicer, definition_feed: DefinitionFeedServicer
) -> list[grpc_server.Registration]:
    return [
        partial(definitions_pb2_grpc.add_DefinitionServiceServicer_to_server, definitions),
        partial(definitions_pb2_grpc.add_DefinitionFeedServiceServicer_to_server, definition_feed),
    ]
