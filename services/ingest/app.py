"""The composition root of both roles."""

from asyncio import TaskGroup
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp

from chassis import grpc_client, grpc_server, http_server, mutual_tls, postgres
from chassis.clock import Clock, SystemClock
from chassis.health import Health
from chassis.migrations import schema_probe
from chassis.mutual_tls import MutualTls
from chassis.principals import PrincipalVerifier
from chassis.tasks import in_background
from contracts.pulsegate.ingest.v1 import ingest_pb2_grpc
from services.ingest import clock_check, log
from services.ingest.admission import Admission
from services.ingest.auto_definition import AutoDefinition
from services.ingest.callers import CALLERS
from services.ingest.clients import AuthClient, ConfigClient
from services.ingest.definitions import DefinitionTable
from services.ingest.fleet import Fleet
from services.ingest.grpc_api import IngestServicer
from services.ingest.grpc_api.ledger import LedgerServicer
from services.ingest.lane import Lane
from services.ingest.log_writer import LaneWriters, LogWriter, Queued
from services.ingest.operations.batches import Receiver
from services.ingest.operations.endings import SeriesEndings
from services.ingest.operations.ledger import LedgerReader
from services.ingest.settings import AggregatorSettings, ReceiverSettings
from services.ingest.sinks.addresses import SinkAddress, SinkKind
from services.ingest.sinks.backlog import Backlog
from services.ingest.sinks.delivery import Sink
from services.ingest.sinks.pushgateway import Pushgateway
from services.ingest.sinks.remote_write import RemoteWrite
from services.ingest.storage import postgres_clock
from services.ingest.storage.checkpoints import PostgresCheckpoints
from services.ingest.storage.leases import Leases
from services.ingest.tallies import Tallies

MIGRATIONS = Path(__file__).parent / "migrations"

#: Enough to renew 256 leases of the shortest time, while another lane is waited for.
_LEASE_CONNECTIONS = 3


@asynccontextmanager
async def receiver(settings: ReceiverSettings) -> AsyncIterator[None]:
    """The receiver, serving while open. Leaving drains calls first, then what waits for the log."""
    clock, health = SystemClock(), Health()
    async with AsyncExitStack() as stack:
        tls = await stack.enter_async_context(mutual_tls.kept_fresh(settings.mutual_tls()))
        stream = await stack.enter_async_context(log.connected(settings, "pulsegate receiver"))
        auth_channel = await stack.enter_async_context(
            grpc_client.connected("auth", settings.auth_address, settings.following("service_token"), tls=tls)
        )
        config_channel = await stack.enter_async_context(
            grpc_client.connected("config", settings.config_address, settings.following("service_token"), tls=tls)
        )
        endings = SeriesEndings(clock)
        config = ConfigClient(config_channel)
        definitions = DefinitionTable(config, clock, endings)
        writers = _writers(stream, settings)
        lanes = LaneWriters(writers)
        tallies = Tallies(clock)
        database = (
            await stack.enter_async_context(postgres.connected(settings.following("dsn"))) if settings.dsn else None
        )
        admission = Admission(database, definitions, clock)
        auto_definition = AutoDefinition(config, definitions, clock)
        taking = Receiver(definitions, auto_definition, lanes, tallies, admission, clock)

        health.add("log", stream.probe, hard=True)
        health.add("definitions", definitions.probe, hard=True)
        health.add("config", config_channel.probe, hard=False)
        health.add("auth", auth_channel.probe, hard=False)
        if database is not None:
            health.add("postgres", schema_probe(database, MIGRATIONS), hard=False)
            shared_now_ms = partial(postgres_clock.now_ms, database)
            health.add("clock", partial(clock_check.probe, clock, shared_now_ms), hard=False)

        work = [*(writer.run() for writer in writers), definitions.follow(), admission.follow(), endings.run(lanes)]
        await stack.enter_async_context(in_background(*work))
        await stack.enter_async_context(tallies.told_to(lanes))
        await stack.enter_async_context(health.watching())
        await stack.enter_async_context(http_server.serving_operations(settings.host, settings.operations_port, health))
        verifier = PrincipalVerifier(AuthClient(auth_channel).signing_keys)
        servicer, ledger = IngestServicer(taking, verifier), LedgerServicer(LedgerReader(database))
        await stack.enter_async_context(_serving(servicer, ledger, settings, verifier, health, tls))
        try:
            yield
        finally:
            health.stopping = True
            servicer.drain()


def _serving(
    servicer: IngestServicer,
    ledger: LedgerServicer,
    settings: ReceiverSettings,
    verifier: PrincipalVerifier,
    health: Health,
    tls: MutualTls | None,
) -> AbstractAsyncContextManager[object]:
    return grpc_server.serving(
        settings.host,
        settings.grpc_port,
        (
            partial(ingest_pb2_grpc.add_IngestServiceServicer_to_server, servicer),
            partial(ingest_pb2_grpc.add_LedgerServiceServicer_to_server, ledger),
        ),
        callers=CALLERS,
        service_token=settings.following("service_token"),
        verifier=verifier,
        process_health=health,
        tls=tls,
        drain_seconds=settings.drain_seconds,
    )


def _writers(stream: log.Log, settings: ReceiverSettings) -> list[LogWriter]:
    """One for each lane."""
    queued = Queued(settings.most_queued_bytes)
    return [
        LogWriter(stream, lane, queued, timeout_seconds=settings.append_timeout_seconds)
        for lane in range(settings.lanes)
    ]


def _sink(address: SinkAddress, session: aiohttp.ClientSession, settings: AggregatorSettings) -> Sink:
    url, headers = settings.url_of(address), settings.headers_of(address)
    if address.kind is SinkKind.PUSHGATEWAY:
        return Pushgateway(session, url, name=address.name, headers=headers)
    return RemoteWrite(
        session,
        url,
        name=address.name,
        headers=headers,
        oldest_ms=settings.sink_oldest_seconds * 1000,
        oldest_native_ms=settings.sink_native_oldest_seconds * 1000,
    )


async def _probe_sink(lanes: Sequence[Lane], sink: Sink) -> None:
    for lane in lanes:
        await lane.probe_sink(sink.name)


@asynccontextmanager
async def aggregator(settings: AggregatorSettings, clock: Clock | None = None) -> AsyncIterator[None]:
    """The aggregator, at work while open. Leaving commits what was read and gives the lanes back."""
    clock, health = clock or SystemClock(), Health()
    async with AsyncExitStack() as stack:
        stream = await stack.enter_async_context(log.connected(settings, "pulsegate aggregator"))
        database = await stack.enter_async_context(postgres.connected(settings.following("dsn")))
        for_leases = await stack.enter_async_context(
            postgres.connected(settings.following("dsn"), pool_name="leases", most_connections=_LEASE_CONNECTIONS)
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        sinks = [_sink(each, session, settings) for each in settings.sinks]
        checkpoints, leases = PostgresCheckpoints(database), Leases(for_leases)
        fleet = Fleet(leases, clock, lanes=settings.lanes, lease_seconds=settings.lease_seconds)
        backlog = Backlog(settings.sink_most_pending_bytes)
        lanes = [
            Lane(number, settings, stream, checkpoints, leases, fleet, sinks, backlog, clock)
            for number in range(settings.lanes)
        ]

        health.add("postgres", schema_probe(database, MIGRATIONS), hard=True)
        health.add("log", stream.probe, hard=True)
        health.add("clock", fleet.probe_clock, hard=False)
        for number, lane in enumerate(lanes):
            health.add(f"lane {number}", lane.probe, hard=True)
        for sink in sinks:
            health.add(f"sink {sink.name}", partial(_probe_sink, lanes, sink), hard=False)

        await stack.enter_async_context(health.watching())
        await stack.enter_async_context(http_server.serving_operations(settings.host, settings.operations_port, health))
        await stack.enter_async_context(fleet.attending())
        async with TaskGroup() as working:
            for lane in lanes:
                working.create_task(lane.run())
            yield
            health.stopping = True
            for lane in lanes:
                lane.stop()
