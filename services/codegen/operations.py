"""The use cases: a client for the definitions as they are now, and one that was generated before."""

import asyncio
from concurrent.futures import Executor
from typing import Literal

from chassis.errors import Invalid
from chassis.postgres import Database
from chassis.principals import Principal
from chassis.timely_turns import TimelyTurns
from services.codegen import metrics, outputters
from services.codegen.clients import ConfigClient, FetchedDefinitions
from services.codegen.digests import Digests
from services.codegen.domain import Artifact, Options, Retention, input_hash, is_sha256
from services.codegen.errors import ArtifactNotFound
from services.codegen.recent import RecentArtifacts
from services.codegen.runtimes import Runtime, Runtimes
from services.codegen.storage import ArtifactStorage

#: Of a tenant one. Each takes the memory of a project's definitions, and then of a client.
_MOST_LOOK_UPS = 4
#: Of a tenant one, apart from those: who names a client by its hash waits for nobody who waits for config.
_MOST_READS = 4
#: Of a tenant one. While one is rendered, the next one's definitions come.
_MOST_RENDERS = 2


class ClientGeneration:
    """Generates clients, and keeps what it has handed out. Any principal of a project may ask."""

    def __init__(
        self,
        *,
        config: ConfigClient,
        database: Database,
        artifacts: ArtifactStorage,
        recent: RecentArtifacts,
        runtimes: Runtimes,
        renderer: Executor,
        retention: Retention,
    ) -> None:
        self._config = config
        self._digests = Digests(config)
        self._database = database
        self._artifacts = artifacts
        self._recent = recent
        self._runtimes = runtimes
        self._retention = retention
        self._looking_up = TimelyTurns(_MOST_LOOK_UPS, "clients are wanted")
        self._reading = TimelyTurns(_MOST_READS, "clients are read")
        self._rendering = TimelyTurns(_MOST_RENDERS, "clients are generated")
        self._renderer = renderer

    async def generate(self, principal: Principal, options: Options) -> Artifact:
        """The client for the definitions as of now. Durable before it is answered, so that its hash may be pinned.

        Raises RuntimeMissing, DefinitionNotRenderable, ClientTooLarge, Unavailable (config, the database or a turn).
        """
        runtime = self._runtimes.get(outputters.OUTPUTS[options.language].runtime_path(options))
        asked_at = self._digests.asked_at()
        async with self._looking_up.one(principal.tenant_id):
            key = _key(await self._digests.since(asked_at, principal.project_id), options, runtime)
            artifact, source = await self._known(principal, key)
        if artifact is None:
            async with self._rendering.one(principal.tenant_id):
                artifact, source = await self._made(principal, key, options, runtime)
        metrics.CLIENTS.labels(options.language, source).inc()
        return artifact

    async def _known(self, principal: Principal, key: str) -> tuple[Artifact | None, str]:
        """What was generated from these inputs before, and where it was."""
        artifact = self._recent.get(principal.project_id, key)
        if artifact is not None:
            return artifact, "memory"
        artifact = await self._stored(principal, "input_hash", key)
        if artifact is not None:
            self._recent.put(principal.project_id, key, artifact)
        return artifact, "postgres"

    async def _made(self, principal: Principal, key: str, options: Options, runtime: Runtime) -> tuple[Artifact, str]:
        """What another one's turn has made meanwhile, or else of definitions that are fetched again: who waits for a
        turn keeps none in memory."""
        artifact = self._recent.get(principal.project_id, key)
        if artifact is not None:
            return artifact, "memory"
        fetched = await self._config.definitions(principal.project_id)
        key = _key(fetched.digest, options, runtime)
        artifact, source = await self._known(principal, key)
        if artifact is None:
            artifact, source = await self._rendered(fetched, options, runtime), "rendered"
            await self._store(principal, key, artifact)
            self._recent.put(principal.project_id, key, artifact)
        return artifact, source

    async def _rendered(self, fetched: FetchedDefinitions, options: Options, runtime: Runtime) -> Artifact:
        rendering = asyncio.get_running_loop().run_in_executor(self._renderer, _render, fetched, options, runtime)
        try:
            return await asyncio.shield(rendering)
        finally:  # a thread goes on when its caller has given up, and takes up memory for as long
            await asyncio.wait([rendering])

    async def _stored(
        self, principal: Principal, by: Literal["input_hash", "content_hash"], sha256: str
    ) -> Artifact | None:
        async with self._database.transaction(tenant_id=principal.tenant_id) as connection:
            return await self._artifacts.find(connection, principal.project_id, by, sha256)

    async def _store(self, principal: Principal, key: str, artifact: Artifact) -> None:
        async with self._database.transaction(tenant_id=principal.tenant_id) as connection:
            await self._artifacts.add(connection, principal.tenant_id, principal.project_id, key, artifact)
            await self._artifacts.prune(
                connection, principal.tenant_id, self._retention, project_id=principal.project_id, input_hash=key
            )

    async def artifact(self, principal: Principal, sha256: str) -> Artifact:
        """What was once generated for the project and has these bytes. Raises VALIDATION_FAILED, ArtifactNotFound,
        Unavailable (the database or a turn)."""
        if not is_sha256(sha256):
            raise Invalid.fields({"sha256": "must be 64 hexadecimal digits"})
        artifact = self._recent.get(principal.project_id, sha256)
        if artifact is not None:
            return artifact
        async with self._reading.one(principal.tenant_id):
            artifact = await self._stored(principal, "content_hash", sha256)
        if artifact is None:
            raise ArtifactNotFound("No client with this hash was generated for the project, or not in a long time.")
        self._recent.put(principal.project_id, sha256, artifact)
        return artifact


def _key(digest: str, options: Options, runtime: Runtime) -> str:
    return input_hash(digest, options, f"{outputters.SOURCES_DIGEST} {runtime.sha256}")


def _render(fetched: FetchedDefinitions, options: Options, runtime: Runtime) -> Artifact:
    with metrics.RENDERING.labels(options.language).time():
        return outputters.render(fetched.decode(), options, runtime.text)
