"""What a credential stands for at this moment, as a principal that every service believes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from chassis.clock import Clock, from_unix_ms
from chassis.errors import PulsegateError
from chassis.ids import is_uuid
from chassis.postgres import Connection, Database
from services.auth import metrics
from services.auth.domain import Limits, ProjectId, Role, TenantId, best_plan
from services.auth.errors import InvalidApiKey, InvalidProvisioningToken, SessionOver, TenantSuspended
from services.auth.key_usage import KeyUsage
from services.auth.operations.access import no_such
from services.auth.operations.provisioning import PROVISIONER
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.row_access import show_rows
from services.auth.storage.verdicts import KeyVerdict, ProjectVerdict, ProvisionerVerdict, VerdictStorage
from services.auth.tokens import AccessClaims, Tokens

_SHA256_BYTES = 32


@contextmanager
def _counted(credential: str) -> Iterator[None]:
    try:
        yield
    except PulsegateError as error:
        metrics.VERDICTS.labels(credential, error.code).inc()
        raise
    metrics.VERDICTS.labels(credential, "ok").inc()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A principal, and what the gateway needs beside it."""

    principal: str
    #: The feed's revision at which it was true.
    revision: int
    #: Origins from which a publishable key may be used; empty for other credentials.
    allowed_origins: Sequence[str]
    plan: str
    #: Of the tenant; of what belongs to no tenant none are set.
    limits: Limits
    #: Tenants beside the principal's of which plan and limits are.
    tenant_ids: Sequence[TenantId] = ()


class Verdicts:
    """Nothing is remembered here: each answer is what the database says now."""

    def __init__(
        self,
        database: Database,
        verdicts: VerdictStorage,
        accounts: AccountStorage,
        tokens: Tokens,
        usage: KeyUsage,
        clock: Clock,
        *,
        default_plan: str,
    ) -> None:
        self._database = database
        self._verdicts = verdicts
        self._accounts = accounts
        self._tokens = tokens
        self._usage = usage
        self._clock = clock
        self._default_plan = default_plan

    async def of_key(self, key_hash: bytes) -> Verdict:
        """Raises InvalidApiKey for an unknown, revoked or expired key, TenantSuspended for another."""
        with _counted("api_key"):
            if len(key_hash) != _SHA256_BYTES:
                raise InvalidApiKey
            async with self._database.transaction(key_hash=key_hash.hex()) as connection:
                seen = await self._verdicts.of_key(connection, key_hash, self._now())
            if seen.found is None:
                raise InvalidApiKey
            if seen.found.suspended:
                raise TenantSuspended
            self._usage.used(seen.found.key_id)
            return self._key_verdict(seen.found, seen.revision)

    async def of_provisioning_token(self, token_hash: bytes) -> Verdict:
        """Raises InvalidProvisioningToken, TenantSuspended."""
        with _counted("provisioning_token"):
            async with self._database.transaction(provisioning_hash=token_hash.hex()) as connection:
                seen = None
                if tenant_id := await self._verdicts.tenant_of_provisioner(connection, token_hash):
                    await show_rows(connection, "tenant_id", tenant_id)
                    seen = await self._verdicts.of_provisioner(connection, token_hash)
            if seen is None or seen.found is None:  # unknown, or revoked in between
                raise InvalidProvisioningToken
            if seen.found.suspended:
                raise TenantSuspended
            return self._provisioner_verdict(seen.found, seen.revision)

    async def of_access_token(self, token: str, project_id: ProjectId, tenant_id: TenantId) -> Verdict:
        """About a project, or about a tenant or the person's own account where `project_id` or both are empty.

        Raises TokenExpired, SessionOver, NotFound for a project that is not of the person's tenants, TenantSuspended.
        """
        with _counted("access_token"):
            claims = self._tokens.read_access_token(token)
            wanted = project_id if is_uuid(project_id) else None
            async with self._database.transaction(user_id=claims.user_id) as connection:
                seen = await self._verdicts.of_session(connection, claims.user_id, claims.session_id, wanted)
                if seen.found is None:
                    raise SessionOver
                if not project_id:
                    return await self._account_verdict(connection, claims, tenant_id, seen.revision)
            return self._project_verdict(claims, project_id, seen.found, seen.revision)

    def _key_verdict(self, key: KeyVerdict, revision: int) -> Verdict:
        principal = self._tokens.principal(
            key.key_id,
            key.kind,
            key.scopes,
            tenant_id=key.tenant_id,
            project_id=key.project_id,
            not_after=key.expires_at.timestamp() if key.expires_at else None,
        )
        return Verdict(
            principal=principal,
            revision=revision,
            allowed_origins=key.allowed_origins,
            plan=key.plan,
            limits=key.limits,
        )

    def _provisioner_verdict(self, provider: ProvisionerVerdict, revision: int) -> Verdict:
        principal = self._tokens.principal(provider.provider_id, PROVISIONER, (), tenant_id=provider.tenant_id)
        return Verdict(
            principal=principal, revision=revision, allowed_origins=(), plan=provider.plan, limits=provider.limits
        )

    def _project_verdict(
        self, claims: AccessClaims, project_id: ProjectId, found: ProjectVerdict, revision: int
    ) -> Verdict:
        if found.role is None or found.tenant_id is None or found.plan is None:
            raise no_such("project")
        if found.suspended:
            raise TenantSuspended
        principal = self._person(claims, found.role, found.tenant_id, project_id)
        return Verdict(principal=principal, revision=revision, allowed_origins=(), plan=found.plan, limits=found.limits)

    async def _account_verdict(
        self, connection: Connection, claims: AccessClaims, tenant_id: TenantId, revision: int
    ) -> Verdict:
        """The principal is the same whichever tenant it is about: what a member may do there is looked up there."""
        memberships = await self._accounts.memberships(connection, claims.user_id)
        named = [membership for membership in memberships if membership.tenant.id == tenant_id]
        return Verdict(
            principal=self._person(claims),
            revision=revision,
            allowed_origins=(),
            plan=best_plan(named or memberships, self._default_plan),
            limits=named[0].limits if named else Limits(),
            tenant_ids=[membership.tenant.id for membership in named or memberships],
        )

    def _person(self, claims: AccessClaims, role: Role | None = None, tenant_id: str = "", project_id: str = "") -> str:
        return self._tokens.principal(
            claims.user_id,
            "user",
            role.scopes if role else (),
            tenant_id=tenant_id,
            project_id=project_id,
            session_id=claims.session_id,
            not_after=claims.expires_at,
        )

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())
