"""Whom a tenant's identity provider vouches for becomes a member of that tenant, whatever kind of provider it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar, cast

from chassis import logs
from chassis.audit import Party
from chassis.clock import Clock, from_unix_ms
from chassis.errors import Forbidden, PulsegateError, Unauthenticated
from chassis.ids import is_uuid, uuid7
from chassis.postgres import Connection, Database
from services.auth import metrics
from services.auth.conversations import Conversations
from services.auth.domain import Role, User, UserId
from services.auth.errors import MemberRemoved, ProviderAway, SignOnNotAllowed, SignOnOver, TenantSuspended
from services.auth.failed_sign_ons import FailedSignOns
from services.auth.identity_providers import IdentityProvider, ProviderId, ProviderOf, Vouched
from services.auth.master_key import MasterKey
from services.auth.operations.access import no_such
from services.auth.operations.audit import AuditTrail, Change
from services.auth.operations.memberships import Memberships
from services.auth.provider_settings import KindSettings
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.feed import FeedStorage
from services.auth.storage.identity_providers import IdentityProviderStorage, IdentityStorage
from services.auth.storage.members import MemberStorage
from services.auth.storage.row_access import show_rows

log = logs.get(__name__)

_Kind = TypeVar("_Kind", bound=KindSettings)


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """Somebody whom the tenant has taken, in a transaction that ends with `tell` and `announce`."""

    user: User
    #: What there is to tell; none: their membership is as it was.
    changes: Sequence[Change]


class Admission:
    """Steps of signing in through a provider."""

    def __init__(
        self,
        database: Database,
        accounts: AccountStorage,
        members: MemberStorage,
        memberships: Memberships,
        providers: IdentityProviderStorage,
        identities: IdentityStorage,
        feed: FeedStorage,
        trail: AuditTrail,
        master_key: MasterKey,
        clock: Clock,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._members = members
        self._memberships = memberships
        self._providers = providers
        self._identities = identities
        self._feed = feed
        self._trail = trail
        self._master_key = master_key
        self._clock = clock
        self._failed = FailedSignOns(clock)
        #: With providers, whatever their kind.
        self.conversations = Conversations()

    async def enabled(self, provider_id: ProviderId, *kinds: type[_Kind]) -> ProviderOf[_Kind]:
        """One of these kinds through which people sign in. Raises NotFound."""
        async with self._database.transaction(provider_id=provider_id if is_uuid(provider_id) else "") as connection:
            found = await self._providers.find(connection, provider_id) if is_uuid(provider_id) else None
        if found is None or not found.enabled or not isinstance(found.settings, kinds):
            raise no_such("identity provider")
        return cast("ProviderOf[_Kind]", found)

    async def still_takes(self, connection: Connection, provider_id: ProviderId, user_id: UserId) -> bool:
        """Whether the provider is enabled, and nobody keeps out whom it vouched for; the tenant's rows are shown then.

        Neither changes until this transaction ends: that would miss the session that is begun here.
        """
        await show_rows(connection, "provider_id", provider_id)
        found = await self._providers.find(connection, provider_id)
        if found is not None:
            await self._members.lock_roles(connection, found.tenant_id)
            found = await self._providers.find(connection, provider_id)
        if found is None or not found.enabled:
            return False
        await show_rows(connection, "tenant_id", found.tenant_id)
        if await self._identities.is_removed(connection, user_id):
            return False
        return not await self._identities.is_deactivated(connection, user_id)

    def secret(self, provider: IdentityProvider) -> str | None:
        if provider.sealed_secret is None:
            return None
        return self._master_key.unseal(provider.sealed_secret, owner=provider.secret_owner).decode()

    async def admit(self, connection: Connection, provider: IdentityProvider, vouched: Vouched) -> Admitted:
        """Makes or finds the account, whose rows are shown then beside the tenant's, and sees to its membership.

        Nobody disables the provider or removes them until this transaction ends. Raises SignOnNotAllowed,
        TenantSuspended, NotFound, SignOnOver, MemberRemoved.
        """
        role = _admitted_as(provider, vouched)
        await self._members.lock_roles(connection, provider.tenant_id)
        if await self._accounts.is_suspended(connection, provider.tenant_id):
            raise TenantSuspended
        await self._require_unchanged(connection, provider)
        user = await self._account(connection, provider, vouched)
        if await self._identities.is_removed(connection, user.id):
            raise MemberRemoved(user.id)
        if await self._identities.is_deactivated(connection, user.id):
            raise SignOnNotAllowed("your identity provider has deactivated you")
        return Admitted(user=user, changes=await self._see_to_membership(connection, provider, user, role))

    async def tell(self, connection: Connection, provider: IdentityProvider, admitted: Admitted) -> None:
        """Tells the tenant, whose rows are shown, what has changed."""
        await self._trail.by(connection, provider.tenant_id, _party(provider), *admitted.changes)

    async def announce(self, connection: Connection, admitted: Admitted) -> None:
        """The last step, after everything is told."""
        if admitted.changes:
            await self._feed.announce(connection, [admitted.user.id])

    async def tell_of_failure(
        self, provider: IdentityProvider, refusal: PulsegateError, *, address: str = "", **details: str
    ) -> None:
        """To the tenant, up to a number an hour, without whom it was about unless they were removed; why its provider
        is away is told to nobody else."""
        metrics.SIGN_INS.labels(refusal.code.lower()).inc()
        if isinstance(refusal, ProviderAway):
            details |= {"url": refusal.url, "cause": refusal.cause}
            log.warning("identity provider away", tenant_id=provider.tenant_id, provider_id=provider.id, **details)
        elif isinstance(refusal, MemberRemoved):
            details |= {"user": refusal.user_id}
        elif not isinstance(refusal, Unauthenticated | Forbidden):
            return
        withheld = self._failed.told(provider.id)
        if withheld is None:
            return
        said = {**details, "reason": refusal.code, **({"withheld": withheld} if withheld else {})}
        change = Change(action="sign_in.failed", target=_party(provider), address=address, details=said)
        async with self._database.transaction(tenant_id=provider.tenant_id) as connection:
            await self._trail.by(connection, provider.tenant_id, _party(provider), change)

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
        await show_rows(connection, "user_id", user.id)
        if known is None:
            await self._identities.insert(connection, user, provider, vouched.subject, self._now())
            return user
        if known.email != user.email:
            await self._identities.rename(connection, user)
        await self._identities.note_sign_on(connection, user.id, self._now())
        return user

    async def _see_to_membership(
        self, connection: Connection, provider: IdentityProvider, user: User, role: Role
    ) -> Sequence[Change]:
        """What changed. Owners stay owners, and without a mapping a role that was given by hand stays."""
        member = await self._members.get(connection, provider.tenant_id, user.id)
        target = Party(kind="user", id=user.id)
        if member is None:
            now = self._now()
            voided = await self._memberships.begin(connection, provider.tenant_id, user, role, now, consented=True)
            return [Change(action="member.added", target=target, details={"role": role.word}), *voided]
        if member.role in (role, Role.OWNER) or not provider.admission.decides_roles:
            return []
        await self._members.update(connection, provider.tenant_id, user.id, role)
        details = {"role": role.word, "before": member.role.word}
        return [Change(action="member.role_changed", target=target, details=details)]

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())


def _party(provider: IdentityProvider) -> Party:
    return Party(kind="identity_provider", id=provider.id, name=provider.name)


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
