"""Signing in through a tenant's identity provider.

An account that a provider has made is known by the provider and its name for the person, and belongs to the provider's
tenant alone: what a provider says of addresses reaches no account of anybody else.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import cast

from psycopg.errors import ForeignKeyViolation

from chassis.clock import Clock, from_unix_ms
from chassis.errors import PulsegateError
from chassis.ids import is_uuid
from chassis.postgres import Connection, Database
from services.auth import metrics
from services.auth.domain import Device, User, UserId
from services.auth.errors import SignOnFailed, SignOnOver
from services.auth.identity_providers import GRANT_LIFE, SIGN_ON_LIFE, ProviderId, ProviderOf, Vouched
from services.auth.oidc import OidcClient, Returned
from services.auth.operations.access import no_such
from services.auth.operations.accounts import SignedIn
from services.auth.operations.admission import Admission
from services.auth.operations.audit import AuditTrail
from services.auth.operations.sessions import Sessions
from services.auth.provider_settings import OidcSettings, SamlSettings
from services.auth.saml import SamlAnswer, SamlClient
from services.auth.saml_metadata import ServiceProvider
from services.auth.sign_on_secrets import SignOnSecrets, challenge_of
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.row_access import show_rows
from services.auth.storage.sign_ons import Grant, SignOn, SignOnStorage

#: Through which a browser signs in at the provider's own pages.
BrowserProvider = ProviderOf[OidcSettings | SamlSettings]

_GRANT_PREFIX = "sg_"


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A sign-on that a browser is to go on with at its provider."""

    authorization_url: str
    state: str
    #: Only who keeps it completes the sign-on.
    browser_secret: str
    #: The provider's page sends it back by POST, from another site than ours.
    posts_back: bool


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
        sign_ons: SignOnStorage,
        admission: Admission,
        sessions: Sessions,
        trail: AuditTrail,
        oidc: OidcClient,
        saml: SamlClient,
        clock: Clock,
        *,
        session_life: timedelta,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._sign_ons = sign_ons
        self._admission = admission
        self._sessions = sessions
        self._trail = trail
        self._oidc = oidc
        self._saml = saml
        self._clock = clock
        self._session_life = session_life

    async def begin(self, provider_id: ProviderId, us: ServiceProvider, return_to: str, challenge: str) -> Begun:
        """`challenge`: as in `SignOn`. Raises NotFound, ProviderAway, and what `Conversations.of` does."""
        provider: BrowserProvider = await self._admission.enabled(provider_id, OidcSettings, SamlSettings)
        state, browser_secret = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        try:
            async with self._admission.conversations.of(provider):
                url = await self._authorization_url(provider, us, state, SignOnSecrets(browser_secret=browser_secret))
        except PulsegateError as refusal:
            await self._admission.tell_of_failure(provider, refusal)
            raise
        sign_on = SignOn(
            state_hash=_digest(state),
            browser_hash=_digest(browser_secret),
            provider_id=provider.id,
            return_to=return_to,
            challenge=challenge,
            expires_at=self._now() + SIGN_ON_LIFE,
        )
        try:
            async with self._database.transaction(sign_on_hash=sign_on.state_hash.hex()) as connection:
                await self._sign_ons.insert(connection, sign_on)
        except ForeignKeyViolation as gone:  # while it was asked
            raise no_such("identity provider") from gone
        posts_back = isinstance(provider.settings, SamlSettings)
        return Begun(authorization_url=url, state=state, browser_secret=browser_secret, posts_back=posts_back)

    async def complete(
        self, provider_id: ProviderId, state: str, browser_secret: str, answer: Returned | SamlAnswer, device: Device
    ) -> Completed:
        """Raises SignOnOver, SignOnFailed, SignOnNotAllowed, MemberRemoved, TenantSuspended, NotFound, and what an
        answer lets raise: ProviderAway, TooManyAnswers, TooManySignOns.
        """
        sign_on = await self._spend(provider_id, state, browser_secret)
        provider: BrowserProvider = await self._admission.enabled(sign_on.provider_id, OidcSettings, SamlSettings)
        secret = self._admission.secret(provider)
        try:
            async with self._admission.conversations.of(provider):
                vouched = await self._vouched(provider, secret, answer, SignOnSecrets(browser_secret=browser_secret))
            grant = await self._admit(provider, vouched, sign_on.challenge)
        except PulsegateError as refusal:
            await self._admission.tell_of_failure(provider, refusal, address=device.address, device=device.name)
            raise
        return Completed(return_to=sign_on.return_to, grant=grant)

    async def saml_metadata(self, provider_id: ProviderId, us: ServiceProvider) -> bytes:
        """What an enabled provider of SAML is to know of us. Raises NotFound."""
        await self._admission.enabled(provider_id, SamlSettings)
        return us.metadata

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

    async def _authorization_url(
        self, provider: BrowserProvider, us: ServiceProvider, state: str, of_browser: SignOnSecrets
    ) -> str:
        """Raises ProviderAway."""
        if isinstance(provider.settings, SamlSettings):
            return self._saml.authorization_url(provider.settings, us, state, of_browser)
        return await self._oidc.authorization_url(
            cast("ProviderOf[OidcSettings]", provider), us.acs_url, state, of_browser
        )

    async def _vouched(
        self, provider: BrowserProvider, secret: str | None, answer: Returned | SamlAnswer, of_browser: SignOnSecrets
    ) -> Vouched:
        """Raises SignOnFailed, ProviderAway, TooManyAnswers."""
        if isinstance(provider.settings, SamlSettings) and isinstance(answer, SamlAnswer):
            return await self._saml.vouched(provider.settings, provider.admission.role_claim, answer, of_browser)
        if isinstance(provider.settings, OidcSettings) and isinstance(answer, Returned):
            of_oidc = cast("ProviderOf[OidcSettings]", provider)
            return await self._oidc.vouched(of_oidc, secret, answer, of_browser)
        raise SignOnFailed("its answer is of another kind")

    async def _granted(self, connection: Connection, digest: bytes, challenge: str) -> tuple[User, ProviderId]:
        """Who is signed in by a grant, through which provider; their rows are shown then. Raises SignOnOver."""
        found = await self._sign_ons.find_grant(connection, digest)
        # Before anything is locked that goes with the provider: who deletes it has these locks in the same order.
        if found is not None and await self._admission.still_takes(connection, found.provider_id, found.user_id):
            spent = await self._sign_ons.spend_grant(connection, digest, challenge, self._now())
            await show_rows(connection, "user_id", found.user_id)
            user = await self._accounts.get(connection, found.user_id)
            if spent is not None and user is not None:
                return user, found.provider_id
        raise SignOnOver

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

    async def _admit(self, provider: BrowserProvider, vouched: Vouched, challenge: str) -> str:
        """A grant for the session of whom the provider vouches for."""
        grant = _GRANT_PREFIX + secrets.token_urlsafe(32)
        async with self._database.transaction(tenant_id=provider.tenant_id) as connection:
            admitted = await self._admission.admit(connection, provider, vouched)
            await show_rows(connection, "sign_on_hash", _digest(grant).hex())
            await self._sign_ons.insert_grant(connection, self._grant(grant, challenge, admitted.user.id, provider.id))
            await self._admission.tell(connection, provider, admitted)
            await self._admission.announce(connection, admitted)
        return grant

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


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
