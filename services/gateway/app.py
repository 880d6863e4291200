"""Puts the gateway together: the only place where its parts are made."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
from redis.asyncio import Redis

from chassis import grpc_client, http_server, mutual_tls
from chassis.breakers import Breaker
from chassis.checked_upstreams import Checked
from chassis.clock import Clock, SystemClock
from chassis.health import Health
from chassis.mutual_tls import MutualTls
from services.gateway import connections, http_api, middlewares, read_cache, redis_limits
from services.gateway import upstreams as services_behind
from services.gateway.authentication import Authentication
from services.gateway.clients.accounts import Accounts, Audit
from services.gateway.clients.credentials import Credentials, SigningKeys
from services.gateway.clients.definitions import DefinitionChanges, Definitions, ProjectDefinitions
from services.gateway.clients.generator import Generator
from services.gateway.clients.invitations import Invitations
from services.gateway.clients.ledger import Ledger
from services.gateway.clients.operators import Operators
from services.gateway.clients.own_account import OwnAccount
from services.gateway.clients.prometheus import Prometheus
from services.gateway.clients.provisioning import Provisioning
from services.gateway.clients.single_sign_on import SingleSignOn
from services.gateway.definition_revisions import DefinitionRevisions
from services.gateway.http_api.accounts import AccountRoutes
from services.gateway.http_api.audit import AuditRoutes
from services.gateway.http_api.changes import Changes
from services.gateway.http_api.definitions import DefinitionRoutes
from services.gateway.http_api.doors import DoorRoutes
from services.gateway.http_api.generated_code import GeneratedCodeRoutes
from services.gateway.http_api.idempotency import Idempotency
from services.gateway.http_api.identity_providers import IdentityProviderRoutes
from services.gateway.http_api.ingestion import IngestionRoutes
from services.gateway.http_api.invitations import InvitationRoutes
from services.gateway.http_api.keys import KeyRoutes
from services.gateway.http_api.leaked_keys import LeakedKeyRoutes
from services.gateway.http_api.ledger import LedgerRoutes
from services.gateway.http_api.limits import LimitRoutes
from services.gateway.http_api.members import MemberRoutes
from services.gateway.http_api.metadata import MetadataRoutes
from services.gateway.http_api.openapi import Resource
from services.gateway.http_api.operators import OperatorRoutes
from services.gateway.http_api.own_account import OwnAccountRoutes
from services.gateway.http_api.pages import PageRoutes
from services.gateway.http_api.project_settings import ProjectSettingsRoutes
from services.gateway.http_api.projects import ProjectRoutes
from services.gateway.http_api.pushes import PushRoutes
from services.gateway.http_api.queries import QueryRoutes
from services.gateway.http_api.reference import ReferenceRoutes
from services.gateway.http_api.removed_members import RemovedMemberRoutes
from services.gateway.http_api.revalidation import revalidated
from services.gateway.http_api.scim import ScimRoutes
from services.gateway.http_api.second_factor import SecondFactorRoutes
from services.gateway.http_api.single_sign_on import SignOnRoutes
from services.gateway.ingestion_streams import IngestionStreams
from services.gateway.kept_answers import KeptAnswers
from services.gateway.kept_reads import KeptReads
from services.gateway.leases import LeasingLimiter
from services.gateway.limits import Limits
from services.gateway.middlewares import Pipeline
from services.gateway.rate_limits import LocalLimiter, SteadyLimiter
from services.gateway.read_cache import ReadCache
from services.gateway.redis_limits import RedisLimiter
from services.gateway.request_rules import RequestRules
from services.gateway.settings import Settings
from services.gateway.shares import HeldBytes
from services.gateway.upstreams import Upstream
from services.gateway.verdicts import Verdicts

#: Redis is asked again so soon after it was found away: deciding alone is worse than a late answer now and then.
_REDIS_RESET_SECONDS = 1.0
#: Of large answers to reads, until clients have read them: one tenant may have a quarter, as Prometheus' largest takes.
_MOST_ANSWER_BYTES = 128 << 20


@dataclass(frozen=True, kw_only=True)
class Upstreams:
    """The services behind."""

    auth: Upstream
    #: auth again, behind a breaker of its own: a flood of sign-ins that auth sheds must not keep credentials unchecked.
    credentials: Upstream
    config: Upstream
    codegen: Upstream
    #: the receiver by calls of their own, for questions.
    ledger: Upstream
    ingest: IngestionStreams


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    """The gateway, while open."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        upstreams = await _connect(stack, settings)
        credentials = Credentials(upstreams.credentials)
        signing_keys = SigningKeys(credentials, clock)
        verdicts = Verdicts(credentials, clock, grace_seconds=settings.auth_outage_grace_seconds)
        await stack.enter_async_context(verdicts.watching())
        in_redis = RedisLimiter(*await _redis(stack, settings, "redis"))
        limits = _limits(settings, in_redis, clock)
        answers = HeldBytes("answers", _MOST_ANSWER_BYTES)
        prometheus = await _prometheus(stack, settings, answers)
        health = _health(upstreams, in_redis, prometheus, signing_keys, verdicts)
        await stack.enter_async_context(health.watching())

        authentication = Authentication(verdicts, limits)
        cache = await _read_cache(stack, settings, upstreams, clock)
        resources = _resources(
            settings,
            upstreams,
            prometheus,
            health,
            clock,
            signing_keys=signing_keys,
            limits=limits,
            known=authentication,
            cache=cache,
            answers=answers,
        )
        once = Idempotency(await _kept_answers(stack, settings)).once
        stages = middlewares.stages_by_audience(
            authentication, limits, once=once, changing=Changes(cache).told, revalidated=revalidated
        )
        api = http_api.Api(resources, stages, _pipeline(settings, answers))
        await stack.enter_async_context(http_server.serving_operations(settings.host, settings.operations_port, health))
        await health.refresh()  # the first client's call finds connections that are there
        await stack.enter_async_context(_serving(api, settings))
        try:
            yield
        finally:
            health.stopping = True
            await clock.sleep(settings.unready_seconds)


def _resources(
    settings: Settings,
    upstreams: Upstreams,
    prometheus: Prometheus | None,
    health: Health,
    clock: Clock,
    *,
    signing_keys: SigningKeys,
    limits: Limits,
    known: Authentication,
    cache: ReadCache,
    answers: HeldBytes,
) -> list[Resource]:
    """Everything that has an address, in the order in which the reference tells of it."""
    accounts, definitions = Accounts(upstreams.auth), Definitions(upstreams.config)
    kept = KeptReads(cache, definitions, Generator(upstreams.codegen))
    own_account, operators = OwnAccount(upstreams.auth), Operators(upstreams.auth)
    single_sign_on = SingleSignOn(upstreams.auth)
    resources: list[Resource] = [
        AccountRoutes(accounts, signing_keys, limits),
        OwnAccountRoutes(own_account, limits),
        SecondFactorRoutes(own_account, limits),
        ProjectRoutes(accounts),
        KeyRoutes(accounts),
        LeakedKeyRoutes(accounts),
        MemberRoutes(accounts),
        AuditRoutes(Audit(upstreams.auth), limits, answers),
        LimitRoutes(accounts, operators, limits),
        InvitationRoutes(Invitations(upstreams.auth), limits),
        IdentityProviderRoutes(single_sign_on, endpoint=settings.endpoint),
        RemovedMemberRoutes(single_sign_on),
        ScimRoutes(Provisioning(upstreams.auth), endpoint=settings.endpoint),
        SignOnRoutes(single_sign_on, limits, endpoint=settings.endpoint, cors_origins=settings.cors_origins),
        OperatorRoutes(operators),
        DefinitionRoutes(definitions, kept),
        ProjectSettingsRoutes(definitions),
        GeneratedCodeRoutes(kept, accounts, known, endpoint=settings.endpoint),
        IngestionRoutes(upstreams.ingest),
        DoorRoutes(upstreams.ingest),
        PushRoutes(upstreams.ingest),
        LedgerRoutes(Ledger(upstreams.ledger), clock),
        QueryRoutes(prometheus, timeout_seconds=settings.query_timeout_seconds),
        MetadataRoutes(ProjectDefinitions(upstreams.config)),
        PageRoutes(health, endpoint=settings.endpoint),
    ]
    resources.append(ReferenceRoutes(resources, endpoint=settings.endpoint))
    return resources


def _pipeline(settings: Settings, answers: HeldBytes) -> Pipeline:
    return Pipeline(
        RequestRules(settings.request_rules),
        answers,
        timeout_seconds=settings.request_timeout_seconds,
        slow_client_seconds=settings.slow_client_seconds,
        cors_origins=settings.cors_origins,
    )


async def _redis(stack: AsyncExitStack, settings: Settings, name: str) -> tuple[Redis, Breaker]:
    """Connections and a breaker of their own for each use: however many reads ask, no limit waits behind them."""
    redis = await stack.enter_async_context(redis_limits.connected(settings.following("redis_url")))
    return redis, Breaker(name, reset_seconds=_REDIS_RESET_SECONDS, least_calls=5)


async def _read_cache(stack: AsyncExitStack, settings: Settings, upstreams: Upstreams, clock: Clock) -> ReadCache:
    redis, breaker = await _redis(stack, settings, "redis-reads")
    revisions = DefinitionRevisions(
        DefinitionChanges(upstreams.config.channel), clock, lambda newest: read_cache.since(redis, breaker, newest)
    )
    await stack.enter_async_context(revisions.watching())
    return ReadCache(redis, breaker, revisions, clock, secret=settings.sealed_under)


async def _kept_answers(stack: AsyncExitStack, settings: Settings) -> KeptAnswers:
    redis, breaker = await _redis(stack, settings, "redis-answers")
    return KeptAnswers(
        redis, breaker, secret=settings.sealed_under, longest_request_seconds=settings.request_timeout_seconds
    )


async def _connect(stack: AsyncExitStack, settings: Settings) -> Upstreams:
    tls = await stack.enter_async_context(mutual_tls.kept_fresh(settings.mutual_tls()))

    async def connect(
        service: str, address: str, most_calls: int = settings.upstream_calls, *, callee: str = ""
    ) -> Upstream:
        return await stack.enter_async_context(
            services_behind.connected(
                service,
                address,
                settings.following("service_token"),
                reset_seconds=settings.breaker_reset_seconds,
                timeout_seconds=settings.request_timeout_seconds,
                most_calls=most_calls,
                tls=tls,
                callee=callee,
            )
        )

    return Upstreams(
        auth=await connect("auth", settings.auth_address),
        # Small questions, which come all at once where a gateway has just started.
        credentials=await connect("credentials", settings.auth_address, 4 * settings.upstream_calls, callee="auth"),
        config=await connect("config", settings.config_address),
        codegen=await connect("codegen", settings.codegen_address),
        ledger=await connect("ledger", settings.ingest_address, callee="receiver"),
        ingest=await _receivers(stack, settings, tls),
    )


async def _receivers(stack: AsyncExitStack, settings: Settings, tls: MutualTls | None) -> IngestionStreams:
    channel = await stack.enter_async_context(
        grpc_client.connected(
            "ingest", settings.ingest_address, settings.following("service_token"), tls=tls, callee="receiver"
        )
    )
    streams = IngestionStreams(
        channel,
        streams=settings.ingest_streams,
        reset_seconds=settings.breaker_reset_seconds,
        timeout_seconds=settings.request_timeout_seconds,
    )
    await stack.enter_async_context(streams.carrying())
    return streams


def _serving(api: http_api.Api, settings: Settings) -> AbstractAsyncContextManager[None]:
    return connections.serving(
        api,
        settings.host,
        settings.port,
        certificate=settings.certificate(),
        patience_seconds=settings.slow_client_seconds,
        drain_seconds=settings.drain_seconds,
    )


def _limits(settings: Settings, in_redis: RedisLimiter, clock: SystemClock) -> Limits:
    limiter = SteadyLimiter(
        LeasingLimiter(in_redis, clock, replicas=settings.replicas), LocalLimiter(clock, settings.replicas)
    )
    return Limits(
        limiter,
        clock,
        default_plan=settings.default_plan,
        auth_requests_per_minute=settings.auth_requests_per_minute,
        ingest_requests_per_minute=settings.ingest_requests_per_minute,
        address_requests_per_15_minutes=settings.address_requests_per_15_minutes,
        trusted_proxies=settings.trusted_proxies,
    )


async def _prometheus(stack: AsyncExitStack, settings: Settings, answers: HeldBytes) -> Prometheus | None:
    if settings.prometheus_url is None:
        return None
    # Nothing waits for a connection: what is too much is turned away before.
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    return Prometheus(
        session,
        settings.following("prometheus_url"),
        answers,
        reset_seconds=settings.breaker_reset_seconds,
        timeout_seconds=settings.query_timeout_seconds,
        most_calls=settings.upstream_calls,
        most_queries=settings.prometheus_queries,
    )


def _health(
    upstreams: Upstreams,
    in_redis: RedisLimiter,
    prometheus: Prometheus | None,
    signing_keys: SigningKeys,
    verdicts: Verdicts,
) -> Health:
    """Nothing is hard once auth's keys and feed were seen: without one service the routes of the others go on."""

    async def auth_seen() -> None:
        await signing_keys.probe()
        await verdicts.probe()

    health = Health()
    health.add("auth-keys", auth_seen, hard=True)
    behind: list[tuple[Upstream | IngestionStreams, list[Breaker]]] = [
        (upstreams.auth, [upstreams.auth.breaker, upstreams.credentials.breaker]),
        (upstreams.config, [upstreams.config.breaker]),
        (upstreams.codegen, [upstreams.codegen.breaker]),
        (upstreams.ingest, [upstreams.ingest.breaker, upstreams.ledger.breaker]),
    ]
    for service, breakers in behind:
        checked = Checked(service.channel, breakers)
        health.add(service.channel.service, checked.probe, hard=False, breaker=checked.state)
    health.add("redis", in_redis.probe, hard=False, breaker=lambda: in_redis.breaker.state)
    if prometheus is not None:
        health.add("prometheus", prometheus.probe, hard=False, breaker=lambda: prometheus.breaker.state)
    return health
