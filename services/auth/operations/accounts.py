"""Signing up and in, and a person's own view of their account."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chassis.audit import Party
from chassis.clock import Clock, from_unix_ms
from chassis.emails import email_key
from chassis.errors import Invalid, PulsegateError, Unauthenticated
from chassis.ids import uuid7
from chassis.postgres import Connection, Database
from chassis.principals import Principal
from services.auth import metrics
from services.auth.audit_chain import PLATFORM
from services.auth.domain import (
    Device,
    Membership,
    Project,
    ProjectId,
    Role,
    Tenant,
    TenantId,
    User,
    UserId,
    email_fault,
    name_fault,
)
from services.auth.errors import EmailTaken, InvalidCredentials, TooManyPasswords
from services.auth.operations.access import Actor, require_person
from services.auth.operations.audit import AuditTrail, Change
from services.auth.operations.projects import project_change
from services.auth.operations.recovery import Recovery
from services.auth.operations.second_factors import SecondFactors
from services.auth.operations.sessions import IssuedTokens, Sessions
from services.auth.password_rules import judged
from services.auth.passwords import PasswordHasher
from services.auth.storage.accounts import AccountStorage, StoredPassword
from services.auth.storage.members import MemberStorage
from services.auth.storage.projects import ProjectStorage

#: The name of the project that a new tenant begins with.
FIRST_PROJECT = "Default"


@dataclass(frozen=True, kw_only=True)
class SignedUp:
    """A new account, all that was made with it, and its first session."""

    user: User
    tenant: Tenant
    project: Project
    tokens: IssuedTokens


@dataclass(frozen=True, kw_only=True)
class SignedIn:
    """A known account and a new session."""

    user: User
    memberships: Sequence[Membership]
    tokens: IssuedTokens


@dataclass(frozen=True, kw_only=True)
class Me:
    """A person's own view of their account."""

    user: User
    memberships: Sequence[Membership]
    email_verified: bool


class Accounts:
    """See the methods."""

    def __init__(
        self,
        database: Database,
        accounts: AccountStorage,
        members: MemberStorage,
        projects: ProjectStorage,
        sessions: Sessions,
        recovery: Recovery,
        second_factors: SecondFactors,
        trail: AuditTrail,
        hasher: PasswordHasher,
        clock: Clock,
        *,
        default_plan: str,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._members = members
        self._projects = projects
        self._sessions = sessions
        self._recovery = recovery
        self._second_factors = second_factors
        self._trail = trail
        self._hasher = hasher
        self._clock = clock
        self._default_plan = default_plan

    async def sign_up(self, email: str, password: str, tenant_name: str, device: Device) -> SignedUp:
        """Makes user, tenant, ownership, first project and session, and mails a token that verifies the address.

        Raises Invalid, EmailTaken, TooManyPasswords.
        """
        email = email.strip()
        await self._require_valid(email, password, tenant_name)
        bcrypt = await self._hasher.hash(password)
        user = User(id=UserId(str(uuid7())), email=email)
        tenant = Tenant(id=TenantId(str(uuid7())), name=tenant_name.strip())
        async with self._database.transaction(user_id=user.id, tenant_id=tenant.id) as connection:
            if not await self._accounts.insert_user(connection, user, email_key(email), self._now()):
                raise EmailTaken
            await self._accounts.insert_password(connection, user.id, bcrypt)
            project = await self._make_tenant(connection, user, tenant)
            await self._recovery.begin_verification(connection, user)
            await self._tell_of_sign_up(connection, user, tenant, project, device)
            tokens = await self._sessions.begin(connection, user.id, device)
        metrics.SIGN_UPS.inc()
        return SignedUp(user=user, tenant=tenant, project=project, tokens=tokens)

    async def _require_valid(self, email: str, password: str, tenant_name: str) -> None:
        wrong_email = email_fault(email)
        possible = {
            "email": wrong_email,
            # What is no address is not compared with: it may be as long as a request.
            "password": await judged(password, "" if wrong_email else email, self._hasher),
            "tenantName": name_fault(tenant_name),
        }
        faults = {field: fault for field, fault in possible.items() if fault}
        if faults:
            raise Invalid.fields(faults)

    async def sign_in(self, email: str, password: str, totp: str, device: Device) -> SignedIn:
        """`totp` is a code of the second factor or a recovery code; empty where none was given.

        Raises InvalidCredentials, after the same time, for an unknown e-mail address and a wrong password; after the
        right one TotpRequired, InvalidTotp or TooManyCodes.
        """
        outcome: SignedIn | PulsegateError | None = None
        while outcome is None:
            stored, matches = await self._compared(email, password)
            outcome = InvalidCredentials()
            if stored is not None and matches:
                outcome = await self._begin(stored, password, totp, device)
        if isinstance(outcome, PulsegateError):
            await self._tell_of_failure(stored, outcome, device)
            metrics.SIGN_INS.labels(outcome.code.lower()).inc()
            raise outcome
        metrics.SIGN_INS.labels("ok").inc()
        return outcome

    async def _compared(self, email: str, password: str) -> tuple[StoredPassword | None, bool]:
        """Whose address it is, and whether the password is theirs; after the same time where it is nobody's."""
        key = email_key(email)
        async with self._database.transaction(email=key) as connection:
            stored = await self._accounts.find_password(connection, key)
        matches = await self._hasher.matches(password, stored.bcrypt if stored else None)
        return stored, matches

    async def _renewed(self, password: str, stored: StoredPassword) -> str:
        """The hash at the present cost, or as it is where there is no time for that now: the next sign-in may have."""
        try:
            return await self._hasher.renewed(password, stored.bcrypt)
        except TooManyPasswords:
            return stored.bcrypt

    async def _begin(
        self, stored: StoredPassword, password: str, totp: str, device: Device
    ) -> SignedIn | PulsegateError | None:
        """A session, or what to refuse it with, once what that counts is committed. None: what the password was
        compared with is not its owner's any more."""
        user, renewed = stored.user, await self._renewed(password, stored)
        async with self._database.transaction(user_id=user.id) as connection:
            # Meanwhile it may have been renewed, or replaced, which ends the sessions that are there by then.
            if await self._accounts.lock_password(connection, user.id) != stored.bcrypt:
                return None
            refusal = await self._second_factors.judge(connection, user, totp)
            if refusal is not None:
                return refusal
            if renewed != stored.bcrypt:
                await self._accounts.update_password(connection, user.id, renewed)
            memberships = await self._accounts.memberships(connection, user.id)
            await self._trail.of_member(connection, memberships, user.id, "sign_in.succeeded", **_from(device))
            tokens = await self._sessions.begin(connection, user.id, device)
        return SignedIn(user=user, memberships=memberships, tokens=tokens)

    async def _tell_of_failure(self, stored: StoredPassword | None, refusal: PulsegateError, device: Device) -> None:
        """The same statements for an address that nobody has: these fail in the platform's chain, without the address,
        which may well be a password in the wrong field."""
        user_id = stored.user.id if stored else UserId(PLATFORM)
        async with self._database.transaction(user_id=user_id) as connection:
            said = _from(device, reason=refusal.code)
            await self._trail.of_person(connection, user_id, "sign_in.failed", **said)

    async def _tell_of_sign_up(
        self, connection: Connection, user: User, tenant: Tenant, project: Project, device: Device
    ) -> None:
        await self._trail.of_tenant(
            connection,
            Actor(user_id=user.id, tenant_id=tenant.id, role=Role.OWNER),
            Change(action="account.created", target=Party(kind="user", id=user.id), **_from(device)),
            Change(action="tenant.created", target=Party(kind="tenant", id=tenant.id, name=tenant.name)),
            project_change("project.created", project),
        )

    async def me(self, principal: Principal) -> Me:
        """The person who asks. Raises Unauthenticated where the account is gone."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            user = await self._accounts.get(connection, user_id)
            if user is None:
                raise Unauthenticated("This account does not exist any more.")
            return Me(
                user=user,
                memberships=await self._accounts.memberships(connection, user_id),
                email_verified=await self._accounts.email_verified(connection, user_id),
            )

    async def _make_tenant(self, connection: Connection, owner: User, tenant: Tenant) -> Project:
        now = self._now()
        await self._accounts.insert_tenant(connection, tenant, self._default_plan, now)
        await self._members.insert(connection, tenant.id, owner.id, Role.OWNER, now, consented=True)
        project = Project(id=ProjectId(str(uuid7())), tenant_id=tenant.id, name=FIRST_PROJECT, created_at=now)
        await self._projects.insert(connection, project)
        return project

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())


def _from(device: Device, **details: str) -> dict[str, Any]:
    """What the audit log says of where somebody signs in from."""
    return {"address": device.address, "details": {"device": device.name, **details}}
