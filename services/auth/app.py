"""The composition root of auth: the only place that constructs things."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from chassis import grpc_server, http_server, mutual_tls, postgres
from chassis.clock import Clock, SystemClock
from chassis.health import Health
from chassis.migrations import schema_probe
from chassis.mutual_tls import MutualTls
from chassis.postgres import Database
from chassis.principals import PrincipalVerifier
from chassis.timely_turns import TimelyTurns
from contracts.pulsegate.auth.v1.accounts_pb2_grpc import add_AccountServiceServicer_to_server
from contracts.pulsegate.auth.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from contracts.pulsegate.auth.v1.credentials_pb2_grpc import add_CredentialServiceServicer_to_server
from contracts.pulsegate.auth.v1.invitations_pb2_grpc import add_InvitationServiceServicer_to_server
from contracts.pulsegate.auth.v1.operators_pb2_grpc import add_OperatorServiceServicer_to_server
from contracts.pulsegate.auth.v1.own_account_pb2_grpc import add_OwnAccountServiceServicer_to_server
from contracts.pulsegate.auth.v1.provisioning_pb2_grpc import add_ProvisioningServiceServicer_to_server
from contracts.pulsegate.auth.v1.single_sign_on_pb2_grpc import add_SingleSignOnServiceServicer_to_server
from services.auth import outbound, passwords, saml
from services.auth.audit_chain import HeadSignature
from services.auth.audit_heads import HeadSigner
from services.auth.audit_watch import ChainWatch
from services.auth.callers import CALLERS
from services.auth.directories import Directories
from services.auth.discovery import Discovery
from services.auth.feed import CredentialFeed
from services.auth.grpc_api.accounts import AccountServicer
from services.auth.grpc_api.audit import AuditServicer
from services.auth.grpc_api.credentials import CredentialServicer
from services.auth.grpc_api.invitations import InvitationServicer
from services.auth.grpc_api.operators import OperatorServicer
from services.auth.grpc_api.own_account import OwnAccountServicer
from services.auth.grpc_api.provisioning import ProvisioningServicer
from services.auth.grpc_api.single_sign_on import SingleSignOnServicer
from services.auth.key_usage import KeyUsage
from services.auth.mailers import mailer_of
from services.auth.master_key import MasterKey
from services.auth.oidc import OidcClient
from services.auth.one_time_codes import OneTimeCodes
from services.auth.operations.access import Access
from services.auth.operations.accounts import Accounts
from services.auth.operations.admission import Admission
from services.auth.operations.audit import AuditLog, AuditTrail
from services.auth.operations.directory_sign_on import DirectorySignOn
from services.auth.operations.identity_providers import IdentityProviders
from services.auth.operations.invitations import Invitations
from services.auth.operations.keys import Keys
from services.auth.operations.leaks import Leaks
from services.auth.operations.members import Members
from services.auth.operations.memberships import Memberships
from services.auth.operations.operators import Operators
from services.auth.operations.projects import Projects
from services.auth.operations.provisioning import Provisioning
from services.auth.operations.reclaiming import Reclaiming
from services.auth.operations.recovery import Recovery
from services.auth.operations.removed_members import RemovedMembers
from services.auth.operations.second_factors import SecondFactors
from services.auth.operations.sessions import Sessions
from services.auth.operations.single_sign_on import SingleSignOn
from services.auth.operations.verdicts import Verdicts
from services.auth.outbound import Outbounds
from services.auth.outbox import Outbox, Sender
from services.auth.passwords import PasswordHasher
from services.auth.saml import SamlClient
from services.auth.settings import Settings
from services.auth.signing_keys import KeyRing
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.audit import AnchorStorage, AuditStorage, SignedHeadStorage
from services.auth.storage.feed import FeedStorage
from services.auth.storage.identity_providers import IdentityProviderStorage, IdentityStorage
from services.auth.storage.invitations import InvitationStorage
from services.auth.storage.keys import KeyStorage, KeyUsageStorage
from services.auth.storage.mails import MailedTokenStorage, MailStorage
from services.auth.storage.members import MemberStorage
from services.auth.storage.projects import ProjectStorage
from services.auth.storage.second_factors import SecondFactorStorage
from services.auth.storage.sessions import SessionStorage
from services.auth.storage.sign_ons import SignOnStorage
from services.auth.storage.signing_keys import SigningKeyStorage
from services.auth.storage.tenants import TenantStorage
from services.auth.storage.verdicts import VerdictStorage
from services.auth.tokens import MailedTokens, RefreshTokens, Tokens

MIGRATIONS = Path(__file__).parent / "migrations"


@asynccontextmanager
async def running(settings: Settings, clock: Clock | None = None) -> AsyncIterator[None]:
    """Serves while open. Waits for the database and its schema by itself, and says so in readiness."""
    clock, master_key = clock or SystemClock(), MasterKey(settings.master_key)
    async with AsyncExitStack() as stack:
        health = Health()
        tls = await stack.enter_async_context(mutual_tls.kept_fresh(settings.mutual_tls()))
        database = await stack.enter_async_context(
            postgres.connected(settings.following("dsn"), most_connections=settings.most_connections)
        )
        # Connections of its own, so that a flood of calls cannot silence the feed, nor take auth for unready.
        watching = await stack.enter_async_context(
            postgres.connected(settings.following("dsn"), pool_name="feed", most_connections=2)
        )
        health.add("postgres", schema_probe(watching, MIGRATIONS), hard=True)
        feed = CredentialFeed(watching, FeedStorage())
        # Nor can slow answers about accounts keep credentials unchecked, for which every gateway's callers wait.
        checking = await stack.enter_async_context(
            postgres.connected(
                settings.following("dsn"), pool_name="verdicts", most_connections=settings.verdict_connections
            )
        )

        ring = key_ring(settings, database, master_key, clock)
        health.add("signing_keys", ring.probe, hard=True)
        await stack.enter_async_context(ring.keeping_fresh())
        tokens = _tokens(settings, ring, clock)
        hasher = await stack.enter_async_context(
            passwords.hashing(cost=settings.bcrypt_cost, threads=settings.bcrypt_threads, queue=settings.bcrypt_queue)
        )
        parts = _parts(settings, database, master_key, tokens, hasher, clock)
        signer = HeadSigner(
            database, AuditStorage(), SignedHeadStorage(), AnchorStorage(), HeadSignature.of(master_key), clock
        )
        providers = await stack.enter_async_context(outbound.reaching(settings.sso_private_networks))
        saml_client = await stack.enter_async_context(saml.reading(clock))
        usage = KeyUsage(database, KeyUsageStorage(), clock)
        await stack.enter_async_context(usage.noting())
        registrations = [
            *_registrations(parts, signer, providers, saml_client),
            _verdicts(parts, checking, usage, ring, feed),
        ]

        await stack.enter_async_context(signer.signing())
        chains = ChainWatch(database, HeadSignature.of(master_key), clock)
        await stack.enter_async_context(chains.watching())
        await stack.enter_async_context(_sender(settings, database, master_key, clock).sending())
        await stack.enter_async_context(health.watching())
        await stack.enter_async_context(http_server.serving_operations(settings.host, settings.operations_port, health))
        await stack.enter_async_context(_serving(settings, registrations, ring, health, tls))
        # Last in, so first out: it ends the streams, for which the server would wait.
        await stack.enter_async_context(feed.reading())
        try:
            yield
        finally:
            health.stopping = True


def _serving(
    settings: Settings,
    registrations: Sequence[grpc_server.Registration],
    ring: KeyRing,
    health: Health,
    tls: MutualTls | None,
) -> AbstractAsyncContextManager[object]:
    return grpc_server.serving(
        settings.host,
        settings.grpc_port,
        registrations,
        callers=CALLERS,
        service_token=settings.following("service_token"),
        verifier=PrincipalVerifier(ring.jwks),
        process_health=health,
        tls=tls,
        drain_seconds=settings.drain_seconds,
    )


def key_ring(settings: Settings, database: Database, master_key: MasterKey, clock: Clock) -> KeyRing:
    """The signing keys, which outlive by their overlap every token that the settings allow."""
    return KeyRing(
        database,
        SigningKeyStorage(),
        master_key,
        clock,
        period=timedelta(days=settings.signing_key_days),
        longest_token=timedelta(seconds=max(settings.access_token_seconds, settings.principal_seconds)),
    )


def _tokens(settings: Settings, ring: KeyRing, clock: Clock) -> Tokens:
    return Tokens(
        ring, clock, access_seconds=settings.access_token_seconds, principal_seconds=settings.principal_seconds
    )


def _sender(settings: Settings, database: Database, master_key: MasterKey, clock: Clock) -> Sender:
    return Sender(
        database,
        MailStorage(),
        MailedTokenStorage(),
        AccountStorage(),
        InvitationStorage(),
        MailedTokens(master_key),
        mailer_of(settings.following("smtp") if settings.smtp else None, settings.mail_folder),
        clock,
        sender=settings.mail_sender,
        console_url=settings.console_url,
    )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What operations are made of, besides storages, which keep nothing: each makes its own."""

    settings: Settings
    database: Database
    #: For what is a tenant's: each operation is one transaction, which waits for others of that tenant.
    in_turns: Database
    master_key: MasterKey
    tokens: Tokens
    hasher: PasswordHasher
    clock: Clock
    access: Access
    memberships: Memberships
    trail: AuditTrail
    sessions: Sessions
    outbox: Outbox


def _parts(
    settings: Settings,
    database: Database,
    master_key: MasterKey,
    tokens: Tokens,
    hasher: PasswordHasher,
    clock: Clock,
) -> _Parts:
    access = Access(AccountStorage(), ProjectStorage(), SessionStorage())
    trail = AuditTrail(AuditStorage(), AccountStorage(), clock)
    return _Parts(
        settings=settings,
        database=database,
        in_turns=database.in_turns(
            TimelyTurns(settings.tenant_connections, "calls about projects, keys and members are under way")
        ),
        master_key=master_key,
        tokens=tokens,
        hasher=hasher,
        clock=clock,
        access=access,
        memberships=Memberships(MemberStorage(), IdentityStorage(), InvitationStorage()),
        trail=trail,
        sessions=Sessions(
            database,
            access,
            SessionStorage(),
            FeedStorage(),
            trail,
            tokens,
            RefreshTokens(master_key),
            clock,
            refresh_token_life=timedelta(days=settings.refresh_token_days),
        ),
        outbox=Outbox(
            MailStorage(),
            MailedTokenStorage(),
            AccountStorage(),
            MailedTokens(master_key),
            only_verified=settings.addresses_can_be_verified,
        ),
    )


def _registrations(
    parts: _Parts, signer: HeadSigner, providers: Outbounds, saml_client: SamlClient
) -> list[grpc_server.Registration]:
    recovery, second_factors = _recovery(parts), _second_factors(parts)
    accounts = _accounts(parts, recovery, second_factors)
    own_account = OwnAccountServicer(recovery, second_factors, parts.sessions)
    audit = AuditServicer(
        AuditLog(parts.database, parts.access, AuditStorage(), signer), HeadSignature.of(parts.master_key)
    )
    invitations, operators = _invitations(parts), _operators(parts)
    sign_on, provisioning = _single_sign_on(parts, providers, saml_client), _provisioning(parts)
    return [
        lambda server: add_AccountServiceServicer_to_server(accounts, server),
        lambda server: add_OwnAccountServiceServicer_to_server(own_account, server),
        lambda server: add_AuditServiceServicer_to_server(audit, server),
        lambda server: add_InvitationServiceServicer_to_server(invitations, server),
        lambda server: add_OperatorServiceServicer_to_server(operators, server),
        lambda server: add_SingleSignOnServiceServicer_to_server(sign_on, server),
        lambda server: add_ProvisioningServiceServicer_to_server(provisioning, server),
    ]


def _verdicts(
    parts: _Parts, checking: Database, usage: KeyUsage, ring: KeyRing, feed: CredentialFeed
) -> grpc_server.Registration:
    verdicts = Verdicts(
        checking,
        VerdictStorage(),
        AccountStorage(),
        parts.tokens,
        usage,
        parts.clock,
        default_plan=parts.settings.default_plan,
    )
    servicer = CredentialServicer(verdicts, ring, feed)
    return lambda server: add_CredentialServiceServicer_to_server(servicer, server)


def _recovery(of: _Parts) -> Recovery:
    return Recovery(
        of.database,
        of.access,
        AccountStorage(),
        MailedTokenStorage(),
        SecondFactorStorage(),
        _reclaiming(of),
        of.outbox,
        of.sessions,
        of.trail,
        of.hasher,
        of.clock,
    )


def _reclaiming(of: _Parts) -> Reclaiming:
    return Reclaiming(
        AccountStorage(),
        MemberStorage(),
        ProjectStorage(),
        KeyStorage(),
        InvitationStorage(),
        IdentityProviderStorage(),
        IdentityStorage(),
        FeedStorage(),
        of.trail,
    )


def _second_factors(of: _Parts) -> SecondFactors:
    return SecondFactors(
        of.database,
        of.access,
        AccountStorage(),
        SecondFactorStorage(),
        OneTimeCodes(of.master_key),
        of.sessions,
        of.outbox,
        of.trail,
        of.hasher,
        of.clock,
    )


def _accounts(of: _Parts, recovery: Recovery, second_factors: SecondFactors) -> AccountServicer:
    accounts, members, projects, keys, feed = (
        AccountStorage(),
        MemberStorage(),
        ProjectStorage(),
        KeyStorage(),
        FeedStorage(),
    )
    return AccountServicer(
        accounts=Accounts(
            of.database,
            accounts,
            members,
            projects,
            of.sessions,
            recovery,
            second_factors,
            of.trail,
            of.hasher,
            of.clock,
            default_plan=of.settings.default_plan,
        ),
        sessions=of.sessions,
        projects=Projects(of.in_turns, of.access, accounts, projects, keys, feed, of.trail, of.clock),
        keys=Keys(of.in_turns, of.access, accounts, keys, feed, of.trail, of.master_key, of.clock),
        leaks=Leaks(
            of.database,
            VerdictStorage(),
            keys,
            members,
            feed,
            of.trail,
            of.outbox,
            of.clock,
            only_verified=of.settings.addresses_can_be_verified,
        ),
        members=Members(
            of.in_turns,
            of.access,
            accounts,
            members,
            of.memberships,
            InvitationStorage(),
            feed,
            of.trail,
            of.clock,
            only_verified=of.settings.addresses_can_be_verified,
        ),
    )


def _invitations(of: _Parts) -> InvitationServicer:
    return InvitationServicer(
        Invitations(
            of.in_turns,
            of.access,
            AccountStorage(),
            MemberStorage(),
            of.memberships,
            InvitationStorage(),
            of.outbox,
            FeedStorage(),
            of.trail,
            of.clock,
            only_verified=of.settings.addresses_can_be_verified,
        )
    )


def _operators(of: _Parts) -> OperatorServicer:
    return OperatorServicer(
        Operators(
            of.database,
            of.access,
            AccountStorage(),
            TenantStorage(),
            FeedStorage(),
            of.trail,
            of.clock,
            addresses=of.settings.operators,
        )
    )


def _single_sign_on(of: _Parts, providers: Outbounds, saml_client: SamlClient) -> SingleSignOnServicer:
    accounts, members, stored = AccountStorage(), MemberStorage(), IdentityProviderStorage()
    identities, feed = IdentityStorage(), FeedStorage()
    admission = Admission(
        of.database,
        accounts,
        members,
        of.memberships,
        stored,
        identities,
        feed,
        of.trail,
        of.master_key,
        of.clock,
    )
    session_life = timedelta(hours=of.settings.sso_session_hours)
    return SingleSignOnServicer(
        IdentityProviders(
            of.in_turns, of.access, members, stored, identities, feed, of.trail, of.master_key, providers, of.clock
        ),
        SingleSignOn(
            of.database,
            accounts,
            SignOnStorage(),
            admission,
            of.sessions,
            of.trail,
            OidcClient(Discovery(providers, of.clock), of.clock),
            saml_client,
            of.clock,
            session_life=session_life,
        ),
        DirectorySignOn(
            of.database,
            accounts,
            admission,
            of.sessions,
            of.trail,
            Directories(providers.inside),
            of.clock,
            session_life=session_life,
        ),
        RemovedMembers(of.in_turns, of.access, members, identities, of.trail),
    )


def _provisioning(of: _Parts) -> ProvisioningServicer:
    return ProvisioningServicer(
        Provisioning(
            of.in_turns,
            AccountStorage(),
            MemberStorage(),
            IdentityProviderStorage(),
            IdentityStorage(),
            of.memberships,
            FeedStorage(),
            of.trail,
            of.clock,
        )
    )
