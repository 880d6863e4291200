"""Signing in by the password of a tenant's LDAP directory."""

from datetime import timedelta

from chassis.audit import Party
from chassis.clock import Clock, from_unix_ms
from chassis.errors import PulsegateError
from chassis.postgres import Database
from services.auth import metrics
from services.auth.directories import Directories, DirectoryProvider
from services.auth.domain import Device
from services.auth.identity_providers import ProviderId, Vouched
from services.auth.operations.accounts import SignedIn
from services.auth.operations.admission import Admission
from services.auth.operations.audit import AuditTrail, Change
from services.auth.operations.sessions import Sessions
from services.auth.provider_settings import LdapSettings
from services.auth.storage.accounts import AccountStorage


class DirectorySignOn:
    """See the method."""

    def __init__(
        self,
        database: Database,
        accounts: AccountStorage,
        admission: Admission,
        sessions: Sessions,
        trail: AuditTrail,
        directories: Directories,
        clock: Clock,
        *,
        session_life: timedelta,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._admission = admission
        self._sessions = sessions
        self._trail = trail
        self._directories = directories
        self._clock = clock
        self._session_life = session_life

    async def sign_in(self, provider_id: ProviderId, login: str, password: str, device: Device) -> SignedIn:
        """A session, which ends some hours later: the directory is asked again then.

        Raises what `Directories.vouched`, `Conversations.of` and `Admission.admit` do, and NotFound.
        """
        provider = await self._admission.enabled(provider_id, LdapSettings)
        secret = self._admission.secret(provider)
        try:
            async with self._admission.conversations.of(provider):
                vouched = await self._directories.vouched(provider, secret, login, password)
            signed_in = await self._begin(provider, vouched, device)
        except PulsegateError as refusal:
            await self._admission.tell_of_failure(provider, refusal, address=device.address, device=device.name)
            raise
        metrics.SIGN_INS.labels("ok").inc()
        return signed_in

    async def _begin(self, provider: DirectoryProvider, vouched: Vouched, device: Device) -> SignedIn:
        not_after = from_unix_ms(self._clock.now_ms()) + self._session_life
        async with self._database.transaction(tenant_id=provider.tenant_id) as connection:
            admitted = await self._admission.admit(connection, provider, vouched)
            memberships = await self._accounts.memberships(connection, admitted.user.id)
            tokens = await self._sessions.begin(connection, admitted.user.id, device, not_after=not_after)
            await self._admission.tell(connection, provider, admitted)
            person = Party(kind="user", id=admitted.user.id)
            details = {"device": device.name, "provider": provider.id}
            said = Change(action="sign_in.succeeded", target=person, address=device.address, details=details)
            await self._trail.by(connection, provider.tenant_id, person, said)
            await self._admission.announce(connection, admitted)
        return SignedIn(user=admitted.user, memberships=memberships, tokens=tokens)
