"""Signing in through a tenant's identity provider.

An account that a provider has made is known by the provider and its name for the person, and belongs to the provider's
tenant alone: what a provider says of addresses reaches no account of anybody else.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from chassis import logs
from chassis.audit import Party
from chassis.clock import Clock, from_unix_ms
from chassis.errors import Forbidden, PulsegateError, Unauthenticated
from chassis.ids import is_uuid, uuid7
from chassis.postgres import Connection, Database
from services.auth import metrics
from services.auth.domain import Device, Role, User, UserId
from services.auth.errors import ProviderAway, SignOnNotAllowed, SignOnOver, TenantSuspended
from services.auth.identity_providers import GRANT_LIFE, SIGN_ON_LIFE, IdentityProvider, ProviderId, Vouched
from services.auth.master_key import MasterKey
from services.auth.oidc import OidcClient, Returned, SignOnSecrets, challenge_of
from services.auth.operations.access import no_such
from services.auth.operations.accounts import SignedIn
from services.auth.operations.audit import AuditTrail, Change
from services.auth.operations.sessions import Sessions
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.doors import open_door
from services.auth.storage.feed import FeedStorage
from services.auth.storage.identity_providers import IdentityProviderStorage, IdentityStorage
from services.auth.storage.members import MemberStorage
from services.auth.storage.sign_ons import Grant, SignOn, SignOnStorage

log = logs.get(__name__)

_GRANT_PREFIX = "sg_"


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A sign-on that a browser is to go on with at its provider."""

    authorization_url: str
    state: str
    #: Only who keeps it completes the sign-on.
    browser_secret: str


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A sign-on of somebody whom the provider vouched for and the tenant takes."""

    return_to: str
    #: For `redeem`.
    grant: str


class SingleSignOn:
    """`begin`, `complete` and `redeem`, each once."""

    def __init__(
        self,
        database: Database,
        accounts: AccountStorage,
        members: MemberStorage,
        providers: IdentityProviderStorage,
        identities: IdentityStorage,
        sign_ons: SignOnStorage,
        sessions: Sessions,
        feed: FeedStorage,
        trail: AuditTrail,
        master_key: MasterKey,
        oidc: OidcClient,
        clock: Clock,
        *,
        session_life: timedelta,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._members = members
        self._providers = providers
        self._identities = identities
        self._sign_ons = sign_ons
        self._sessions = sessions
        self._feed = feed
        self._trail = trail
        self._master_key = master_key
        self._oidc = oidc
        self._clock = clock
        self._session_life = session_life

    async def begin(self, provider_id: ProviderId, redirect_uri: str, return_to: str, challenge: str) -> Begun:
        """`challenge`: as in `SignOn`. Raises NotFound, ProviderAway."""
        provider = await self._enabled(provider_id)
        state, browser_secret = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        try:
            url = await self._oidc.authorization_url(
                provider, redirect_uri, state, SignOnSecrets(browser_secret=browser_secret)
            )
        except ProviderAway as away:
            await self._tell_of_failure(provider, away)
            raise
        sign_on = SignOn(
            state_hash=_digest(state),
            browser_hash=_digest(browser_secret),
            provider_id=provider.id,
            return_to=return_to,
            challenge=challenge,
            expires_at=self._now() + SIGN_ON_LIFE,
        )
        async with self._database.transaction(sign_on_hash=sign_on.state_hash.hex()) as connection:
            await self._sign_ons.insert(connection, sign_on)
        return Begun(authorization_url=url, state=state, browser_secret=browser_secret)

    async def complete(
        self, provider_id: ProviderId, state: str, browser_secret: str, returned: Returned, device: Device
    ) -> Completed:
        """Raises SignOnOver, SignOnFailed, SignOnNotAllowed, TenantSuspended, NotFound, ProviderAway."""
        sign_on = await self._spend(provider_id, state, browser_secret)
        provider = await self._enabled(sign_on.provider_id)
        try:
            vouched = await self._oidc.vouched(
                provider, self._secret(provider), returned, SignOnSecrets(browser_secret=browser_secret)
            )
            grant = await self._admit(provider, vouched, sign_on.challenge)
        except PulsegateError as refusal:
            await self._tell_of_failure(provider, refusal, address=device.address, device=device.name)
            raise
        return Completed(return_to=sign_on.return_to, grant=grant)

    async def redeem(self, grant: str, verifier: str, device: Device) -> SignedIn:
        """A session, which ends some hours later: the provider is asked again then. Raises SignOnOver."""
        digest = _digest(grant)
        async with self._database.transaction(sign_on_hash=digest.hex()) as connection:
            user, provider_id = await self._granted(connection, digest, challenge_of(verifier))
            memberships = await self._accounts.memberships(connection, user.id)
            said = {"address": device.address, "details": {"device": device.name, "provider": provider_id}}
            await self._trail.of_member(connection, memberships, user.id, "sign_in.succeeded", **said)
            tokens = await self._sessions.begin(connection, user.id, device, not_after=self._now() + self._session_life)
        metrics.SIGN_INS.labels("ok").inc()
        return SignedIn(user=user, memberships=memberships, tokens=tokens)

    async def _granted(self, connection: Connection, digest: bytes, challenge: str) -> tuple[User, ProviderId]:
        """Who is signed in by a grant, through which provider; their door is open then. Raises SignOnOver."""
        spent = await self._sign_ons.spend_grant(connection, digest, challenge, self._now())
        if spent is not None:
            await open_door(connection, "user_id", spent.user_id)
            user = await self._accounts.get(connection, spent.user_id)
            if user is not None and await self._still_enabled(connection, spent.provider_id):
                return user, spent.provider_id
        raise SignOnOver

    async def _still_enabled(self, connection: Connection, provider_id: ProviderId) -> bool:
        """Nobody disables it until this transaction ends: that would miss the session that is begun here."""
        await open_door(connection, "provider_id", provider_id)
        found = await self._providers.find(connection, provider_id)
        if found is not None:
            await self._members.lock_roles(connection, found.tenant_id)
            found = await self._providers.find(connection, provider_id)
        return found is not None and found.enabled

    async def _spend(self, provider_id: ProviderId, state: str, browser_secret: str) -> SignOn:
        digest = _digest(state)
        async with self._database.transaction(sign_on_hash=digest.hex()) as connection:
            found = None
            if is_uuid(provider_id):
                found = await self._sign_ons.spend(
                    connection, digest, _digest(browser_secret), provider_id, self._now()
                )
        if found is None:
            raise SignOnOver
        return found

    async def _enabled(self, provider_id: ProviderId) -> IdentityProvider:
        async with self._database.transaction(provider_id=provider_id if is_uuid(provider_id) else "") as connection:
            found = await self._providers.find(connection, provider_id) if is_uuid(provider_id) else None
        if found is None or not found.enabled:
            raise no_such("identity provider")
        return found

    def _secret(self, provider: IdentityProvider) -> str | None:
        if provider.sealed_secret is None:
            return None
        return self._master_key.unseal(provider.sealed_secret, owner=provider.secret_owner).decode()

    async def _admit(self, provider: IdentityProvider, vouched: Vouched, challenge: str) -> str:
        """Makes or finds the account, sees to its membership; a grant for its session."""
        role = _admitted_as(provider, vouched)
        grant = _GRANT_PREFIX + secrets.token_urlsafe(32)
        async with self._database.transaction(tenant_id=provider.tenant_id) as connection:
            await self._members.lock_roles(connection, provider.tenant_id)
            if await self._accounts.is_suspended(connection, provider.tenant_id):
                raise TenantSuspended
            await self._require_unchanged(connection, provider)
            user = await self._account(connection, provider, vouched)
            changed = await self._see_to_membership(connection, provider, user, role)
            await open_door(connection, "sign_on_hash", _digest(grant).hex())
            await self._sign_ons.insert_grant(connection, self._grant(grant, challenge, user.id, provider.id))
            if changed is not None:
                party = Party(kind="identity_provider", id=provider.id, name=provider.name)
                await self._trail.by(connection, provider.tenant_id, party, changed)
                await self._feed.announce(connection, [user.id])
        return grant

    async def _require_unchanged(self, connection: Connection, provider: IdentityProvider) -> None:
        """What was decided by its settings as they were some seconds ago must still be so."""
        found = await self._providers.find(connection, provider.id)
        if found is None or not found.enabled:
            raise no_such("identity provider")
        if (found.admission, found.settings) != (provider.admission, provider.settings):
            raise SignOnOver

    async def _account(self, connection: Connection, provider: IdentityProvider, vouched: Vouched) -> User:
        known = await self._identities.find(connection, provider.id, vouched.subject)
        user = User(id=known.id if known else UserId(str(uuid7())), email=vouched.email)
        await open_door(connection, "user_id", user.id)
        if known is None:
            await self._identities.insert(connection, user, provider, vouched.subject, self._now())
        elif known.email != user.email:
            await self._identities.rename(connection, user)
        return user

    async def _see_to_membership(
        self, connection: Connection, provider: IdentityProvider, user: User, role: Role
    ) -> Change | None:
        """What changed. Owners stay owners, and without a mapping a role that was given by hand stays."""
        member = await self._members.get(connection, provider.tenant_id, user.id)
        target = Party(kind="user", id=user.id)
        if member is None:
            await self._members.insert(connection, provider.tenant_id, user.id, role, self._now(), consented=True)
            return Change(action="member.added", target=target, details={"role": role.word})
        if member.role in (role, Role.OWNER) or not provider.admission.decides_roles:
            return None
        await self._members.update(connection, provider.tenant_id, user.id, role)
        details = {"role": role.word, "before": member.role.word}
        return Change(action="member.role_changed", target=target, details=details)

    async def _tell_of_failure(
        self, provider: IdentityProvider, refusal: PulsegateError, *, address: str = "", **details: str
    ) -> None:
        """To the tenant, without whom it was about; why its provider is away is told to nobody else."""
        metrics.SIGN_INS.labels(refusal.code.lower()).inc()
        if isinstance(refusal, ProviderAway):
            details |= {"url": refusal.url, "cause": refusal.cause}
            log.warning("identity provider away", tenant_id=provider.tenant_id, provider_id=provider.id, **details)
        elif not isinstance(refusal, Unauthenticated | Forbidden):
            return
        party = Party(kind="identity_provider", id=provider.id, name=provider.name)
        details["reason"] = refusal.code
        change = Change(action="sign_in.failed", target=party, address=address, details=details)
        async with self._database.transaction(tenant_id=provider.tenant_id) as connection:
            await self._trail.by(connection, provider.tenant_id, party, change)

    def _grant(self, grant: str, challenge: str, user_id: UserId, provider_id: ProviderId) -> Grant:
        return Grant(
            grant_hash=_digest(grant),
            challenge=challenge,
            user_id=user_id,
            provider_id=provider_id,
            expires_at=self._now() + GRANT_LIFE,
        )

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())


def _admitted_as(provider: IdentityProvider, vouched: Vouched) -> Role:
    """Raises SignOnNotAllowed."""
    if not vouched.email:
        raise SignOnNotAllowed("your identity provider does not say that your e-mail address is verified")
    if not provider.admission.takes_address(vouched.email):
        raise SignOnNotAllowed("your e-mail address is of none of the domains that this tenant takes")
    role = provider.admission.role_of(vouched.groups)
    if role is None:
        raise SignOnNotAllowed("none of your groups has a role in this tenant")
    return role


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
