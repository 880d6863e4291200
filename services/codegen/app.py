"""The composition root of the codegen service."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

from chassis import grpc_client, grpc_server, http_server, mutual_tls, postgres
from chassis.checked_upstreams import Checked
from chassis.clock import SystemClock
from chassis.health import Health
from chassis.migrations import schema_probe
from chassis.principals import PrincipalVerifier
from contracts.pulsegate.codegen.v1.codegen_pb2_grpc import add_CodegenServiceServicer_to_server
from services.codegen.callers import CALLERS
from services.codegen.cleaning import Cleaning
from services.codegen.clients import AuthClient, ConfigClient
from services.codegen.domain import Retention
from services.codegen.grpc_api import CodegenServicer
from services.codegen.operations import ClientGeneration
from services.codegen.recent import RecentArtifacts
from services.codegen.runtimes import Runtimes
from services.codegen.settings import Settings
from services.codegen.storage import ArtifactStorage

MIGRATIONS = Path(__file__).parent / "migrations"


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    """The service, from its database to its port, while open."""
    async with AsyncExitStack() as stack:
        health = Health()
        tls = await stack.enter_async_context(mutual_tls.kept_fresh(settings.mutual_tls()))

        database = await stack.enter_async_context(postgres.connected(settings.following("dsn")))
        health.add("postgres", schema_probe(database, MIGRATIONS), hard=True)

        auth = await stack.enter_async_context(
            grpc_client.connected("auth", settings.auth_address, settings.following("service_token"), tls=tls)
        )
        health.add("auth", auth.probe, hard=False)

        config = await stack.enter_async_context(
            grpc_client.connected("config", settings.config_address, settings.following("service_token"), tls=tls)
        )
        config_client = ConfigClient(config)
        checked = Checked(config, [config_client.breaker])
        health.add("config", checked.probe, hard=False, breaker=checked.state)

        runtimes = Runtimes(settings.sdk_directory)
        runtimes.get("python/pulsegate_runtime")  # part of the release, never built: a fault in it ends the start
        health.add(
            "browser_runtime", runtimes.probe("browser/dist/runtime.js", "browser/dist/runtime.min.js"), hard=False
        )

        # One thread: two would share the processor all the same, and each keep the memory that it once needed.
        renderer = stack.enter_context(ThreadPoolExecutor(1, "renderer"))
        artifacts, retention = ArtifactStorage(), _retention(settings)
        generation = ClientGeneration(
            config=config_client,
            database=database,
            artifacts=artifacts,
            recent=RecentArtifacts(SystemClock()),
            runtimes=runtimes,
            renderer=renderer,
            retention=retention,
        )
        auth_client = AuthClient(auth)
        cleaning = Cleaning(database, artifacts, auth_client, retention)

        await stack.enter_async_context(cleaning.going_on())
        await stack.enter_async_context(health.watching())
        await stack.enter_async_context(http_server.serving_operations(settings.host, settings.operations_port, health))
        await stack.enter_async_context(
            grpc_server.serving(
                settings.host,
                settings.grpc_port,
                [lambda server: add_CodegenServiceServicer_to_server(CodegenServicer(generation), server)],
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


def _retention(settings: Settings) -> Retention:
    return Retention(
        unused_for=timedelta(days=settings.artifact_retention_days),
        most_per_project=settings.artifacts_per_project,
        most_tenant_bytes=settings.artifact_bytes_per_tenant,
    )
