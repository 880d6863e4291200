"""The composition root of auth: the only place that constructs things."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from chassis import grpc_server, http_server, mutual_tls, postgres
from chassis.clock import Clock, SystemClock
from chassis.health import Health
from chassis.migrations import schema_probe
from chassis.postgres import Database
from chassis.principals import PrincipalVerifier
from contracts.pulsegate.auth.v1.accounts_pb2_grpc import add_AccountServiceServicer_to_server
from contracts.pulsegate.auth.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from contracts.pulsegate.auth.v1.credentials_pb2_grpc import add_CredentialServiceServicer_to_server
from contracts.pulsegate.auth.v1.invitations_pb2_grpc import add_InvitationServiceServicer_to_server
from contracts.pulsegate.auth.v1.operators_pb2_grpc import add_OperatorServiceServicer_to_server
from contracts.pulsegate.auth.v1.own_account_pb2_grpc import add_OwnAccountServiceServicer_to_server
from contracts.pulsegate.auth.v1.single_sign_on_pb2_grpc import add_SingleSignOnServiceServicer_to_server
from services.auth import outbound, passwords
from services.auth.audit_chain import HeadSignature
from services.auth.audit_heads import HeadSigner
from services.auth.callers import CALLERS
from services.auth.feed import CredentialFeed
from services.auth.grpc_api.accounts import AccountServicer
from services.auth.grpc_api.audit import AuditServicer
from services.auth.grpc_api.credentials import CredentialServicer
from services.auth.grpc_api.invitations import InvitationServicer
from services.auth.grpc_api.operators import OperatorServicer
from services.auth.grpc_api.own_account import OwnAccountServicer
from services.auth.grpc_api.single_sign_on import SingleSignOnServicer
from services.auth.key_usage import KeyUsage
from services.auth.mailers import mailer_of
from services.auth.master_key import MasterKey
from services.auth.oidc import OidcClient
from services.auth.one_time_codes import OneTimeCodes
from services.auth.operations.access import Access
from services.auth.operations.accounts import Accounts
from services.auth.operations.audit import AuditLog, AuditTrail
from services.auth.operations.identity_providers import IdentityProviders
from services.auth.operations.invitations import Invitations
from services.auth.operations.keys import Keys
from services.auth.operations.leaks import Leaks
from services.auth.operations.members import Members
from services.auth.operations.operators import Operators
from services.auth.operations.projects import Projects
from services.auth.operations.recovery import Recovery
from services.auth.operations.second_factors import SecondFactors
from services.auth.operations.sessions import Sessions
from services.auth.operations.single_sign_on import SingleSignOn
from services.auth.operations.verdicts import Verdicts
from services.auth.outbound import Outbound
from services.auth.outbox import Outbox, Sender
from services.auth.passwords import PasswordHasher
from services.auth.settings import Settings
from services.auth.signing_keys import KeyRing
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.audit import AuditStorage, SignedHeadStorage
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
        health.add("postgres", schema_probe(database, MIGRATIONS), hard=True)
        # A connection of its own, so that a flood of calls cannot silence the feed.
        watching = await stack.enter_async_context(postgres.connected(settings.following("dsn"), most_connections=2))
        feed = CredentialFeed(watching, FeedStorage())

        ring = key_ring(settings, database, master_key, clock)
        health.add("signing_keys", ring.probe, hard=True)
        await stack.enter_async_context(ring.keeping_fresh())
        tokens = _tokens(settings, ring, clock)
        hasher = await stack.enter_async_context(
            passwords.hashing(cost=settings.bcrypt_cost, threads=settings.bcrypt_threads, queue=settings.bcrypt_queue)
        )
        signer = HeadSigner(database, AuditStorage(), SignedHeadStorage(), HeadSignature.of(master_key), clock)
        providers = await stack.enter_async_context(outbound.reaching(settings.sso_private_networks))
        servicers = _servicers(settings, database, master_key, tokens, hasher, signer, providers, clock)
        usage = KeyUsage(database, KeyUsageStorage(), clock)
        await stack.enter_async_context(usage.noting())
        verdicts = Verdicts(
            database, VerdictStorage(), AccountStorage(), tokens, usage, clock, default_plan=settings.default_plan
        )
        credential_servicer = CredentialServicer(verdicts, ring, feed)

        await stack.enter_async_context(signer.signing())
        await stack.enter_async_context(_sender(settings, database, master_key, clock).sending())
        await stack.enter_async_context(health.watching())
        await stack.enter_async_context(http_server.serving_operations(settings.host, settings.operations_port, health))
        await stack.enter_async_context(
            grpc_server.serving(
                settings.host,
                settings.grpc_port,
                _registrations(servicers, credential_servicer),
                callers=CALLERS,
                service_token=settings.following("service_token"),
                verifier=PrincipalVerifier(ring.jwks),
                process_health=health,
                tls=tls,
                drain_seconds=settings.drain_seconds,
            )
        )
        # Last in, so first out: it ends the streams, for which the server would wait.
        await stack.enter_async_context(feed.reading())
        try:
            yield
        finally:
            health.stopping = True


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
        mailer_of(settings.smtp, settings.mail_folder),
        clock,
        sender=settings.mail_sender,
        console_url=settings.console_url,
    )


@dataclass(frozen=True, kw_only=True)
class _Servicers:
    accounts: AccountServicer
    own_account: OwnAccountServicer
    audit: AuditServicer
    invitations: InvitationServicer
    operators: OperatorServicer
    single_sign_on: SingleSignOnServicer


def _registrations(servicers: _Servicers, credential_servicer: CredentialServicer) -> list[grpc_server.Registration]:
    return [
        lambda server: add_AccountServiceServicer_to_server(servicers.accounts, server),
        lambda server: add_OwnAccountServiceServicer_to_server(servicers.own_account, server),
        lambda server: add_AuditServiceServicer_to_server(servicers.audit, server),
        lambda server: add_InvitationServiceServicer_to_server(servicers.invitations, server),
        lambda server: add_OperatorServiceServicer_to_server(servicers.operators, server),
        lambda server: add_SingleSignOnServiceServicer_to_server(servicers.single_sign_on, server),
        lambda server: add_CredentialServiceServicer_to_server(credential_servicer, server),
    ]


def _servicers(
    settings: Settings,
    database: Database,
    master_key: MasterKey,
    tokens: Tokens,
    hasher: PasswordHasher,
    signer: HeadSigner,
    providers: Outbound,
    clock: Clock,
) -> _Servicers:
    accounts, members, projects = AccountStorage(), MemberStorage(), ProjectStorage()
    keys, feed, mailed_tokens = KeyStorage(), FeedStorage(), MailedTokenStorage()
    access, audit_entries = Access(accounts, projects), AuditStorage()
    trail = AuditTrail(audit_entries, accounts, clock)
    sessions = Sessions(
        database,
        SessionStorage(),
        feed,
        trail,
        tokens,
        RefreshTokens(master_key),
        clock,
        refresh_token_life=timedelta(days=settings.refresh_token_days),
    )
    outbox = Outbox(MailStorage(), mailed_tokens, MailedTokens(master_key))
    factors = SecondFactorStorage()
    recovery = Recovery(database, accounts, mailed_tokens, factors, outbox, sessions, trail, hasher, clock)
    second_factors = SecondFactors(
        database, accounts, factors, OneTimeCodes(master_key), sessions, outbox, trail, hasher, clock
    )
    account_servicer = AccountServicer(
        accounts=Accounts(
            database,
            accounts,
            members,
            projects,
            sessions,
            recovery,
            second_factors,
            trail,
            hasher,
            clock,
            default_plan=settings.default_plan,
        ),
        sessions=sessions,
        projects=Projects(database, access, accounts, projects, keys, feed, trail, clock),
        keys=Keys(database, access, keys, feed, trail, master_key, clock),
        leaks=Leaks(database, VerdictStorage(), keys, members, feed, trail, outbox, clock),
        members=Members(
            database, access, accounts, members, feed, trail, clock, only_verified=settings.addresses_can_be_verified
        ),
    )
    invitations = Invitations(
        database,
        access,
        accounts,
        members,
        InvitationStorage(),
        outbox,
        feed,
        trail,
        clock,
        only_verified=settings.addresses_can_be_verified,
    )
    operators = Operators(database, accounts, TenantStorage(), feed, trail, clock, addresses=settings.operators)
    return _Servicers(
        accounts=account_servicer,
        own_account=OwnAccountServicer(recovery, second_factors, sessions),
        invitations=InvitationServicer(invitations),
        audit=AuditServicer(AuditLog(database, access, audit_entries, signer), HeadSignature.of(master_key)),
        operators=OperatorServicer(operators),
        single_sign_on=_single_sign_on(settings, database, master_key, access, sessions, trail, providers, clock),
    )


def _single_sign_on(
    settings: Settings,
    database: Database,
    master_key: MasterKey,
    access: Access,
    sessions: Sessions,
    trail: AuditTrail,
    providers: Outbound,
    clock: Clock,
) -> SingleSignOnServicer:
    members, stored, identities, feed = MemberStorage(), IdentityProviderStorage(), IdentityStorage(), FeedStorage()
    return SingleSignOnServicer(
        IdentityProviders(database, access, members, stored, identities, feed, trail, master_key, providers, clock),
        SingleSignOn(
            database,
            AccountStorage(),
            members,
            stored,
            identities,
            SignOnStorage(),
            sessions,
            feed,
            trail,
            master_key,
            OidcClient(providers, clock),
            clock,
            session_life=timedelta(hours=settings.sso_session_hours),
        ),
    )
