"""A tenant's identity providers: owners set them up, admins see them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from chassis import api_keys
from chassis.audit import Party
from chassis.clock import Clock, from_unix_ms
from chassis.ids import is_uuid, uuid7
from chassis.postgres import Connection, Database
from chassis.principals import Principal
from services.auth.domain import Page, PageRequest, Role, SessionId, TenantId
from services.auth.errors import LastOwner, OtherProvider, TooManyProviders
from services.auth.identity_providers import (
    MOST_PROVIDERS,
    IdentityProvider,
    ProviderId,
    ProviderWish,
    changed_members,
    secret_owner,
)
from services.auth.keys import new_provisioning_token
from services.auth.master_key import MasterKey
from services.auth.operations.access import Access, Actor, no_such, require_person
from services.auth.operations.audit import AuditTrail, Change
from services.auth.outbound import Outbounds
from services.auth.provider_settings import LdapSettings
from services.auth.storage.feed import FeedStorage
from services.auth.storage.identity_providers import IdentityProviderStorage, IdentityStorage
from services.auth.storage.members import MemberStorage


class IdentityProviders:
    """Owners alone change them: a provider vouches for everybody whom it has brought."""

    def __init__(
        self,
        database: Database,
        access: Access,
        members: MemberStorage,
        providers: IdentityProviderStorage,
        identities: IdentityStorage,
        feed: FeedStorage,
        trail: AuditTrail,
        master_key: MasterKey,
        outbounds: Outbounds,
        clock: Clock,
    ) -> None:
        self._database = database
        self._access = access
        self._members = members
        self._providers = providers
        self._identities = identities
        self._feed = feed
        self._trail = trail
        self._master_key = master_key
        self._outbounds = outbounds
        self._clock = clock

    async def create(self, principal: Principal, tenant_id: TenantId, wish: ProviderWish) -> IdentityProvider:
        """Raises Invalid, UnsafeAddress, NotFound, Forbidden, TooManyProviders."""
        now, provider_id = self._now(), ProviderId(str(uuid7()))
        provider = IdentityProvider(
            id=provider_id,
            tenant_id=tenant_id,
            name=wish.name.strip(),
            enabled=wish.enabled,
            admission=wish.admission,
            settings=wish.settings,
            sealed_secret=self._sealed(wish.secret, provider_id),
            created_at=now,
            updated_at=now,
        )
        async with self._database.transaction(user_id=require_person(principal)) as connection:
            actor = await self._enter(connection, principal, tenant_id)
            self._require_usable(wish)
            provider.require_complete()
            if await self._providers.count(connection, tenant_id) >= MOST_PROVIDERS:
                raise TooManyProviders
            await self._providers.insert(connection, provider)
            await self._tell(connection, actor, "identity_provider.created", provider)
        return provider

    async def page(self, principal: Principal, tenant_id: TenantId, page: PageRequest) -> Page[IdentityProvider]:
        """From the oldest. Raises NotFound, Forbidden."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            await self._access.to_tenant(connection, principal, tenant_id, Role.ADMIN)
            found = await self._providers.page(connection, tenant_id, page)
        return page.cut(found, lambda provider: provider.id)

    async def get(self, principal: Principal, tenant_id: TenantId, provider_id: ProviderId) -> IdentityProvider:
        """Raises NotFound, Forbidden."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            await self._access.to_tenant(connection, principal, tenant_id, Role.ADMIN)
            return await self._provider(connection, provider_id)

    async def change(
        self, principal: Principal, tenant_id: TenantId, provider_id: ProviderId, wish: ProviderWish
    ) -> IdentityProvider:
        """Sessions end that a provider began which is disabled now.

        Raises Invalid, UnsafeAddress, NotFound, Forbidden, OtherProvider, LastOwner.
        """
        async with self._database.transaction(user_id=require_person(principal)) as connection:
            actor = await self._enter(connection, principal, tenant_id)
            before = await self._provider(connection, provider_id)
            self._require_usable(wish)
            known_by = (before.settings.kind, before.settings.known_by)
            if (wish.settings.kind, wish.settings.known_by) != known_by:
                raise OtherProvider
            after = replace(
                before,
                name=wish.name.strip(),
                enabled=wish.enabled,
                admission=wish.admission,
                settings=wish.settings,
                sealed_secret=self._sealed(wish.secret, before.id) or before.sealed_secret,
                updated_at=self._now(),
            )
            after.require_complete()
            if before.enabled and not after.enabled:
                await self._require_other_owner(connection, before)
            await self._providers.update(connection, after)
            ended: Sequence[SessionId] = []
            if not after.enabled:
                ended = await self._identities.end_sessions(connection, after.id, after.updated_at)
            said = {"changed": changed_members(before, after), "sessionsEnded": len(ended)}
            await self._tell(connection, actor, "identity_provider.changed", after, **said)
            if ended:
                await self._feed.announce(connection, ended)
        return after

    async def delete(self, principal: Principal, tenant_id: TenantId, provider_id: ProviderId) -> None:
        """With all accounts that it made, which end everywhere at once. Raises NotFound, Forbidden, LastOwner."""
        async with self._database.transaction(user_id=require_person(principal)) as connection:
            actor = await self._enter(connection, principal, tenant_id)
            provider = await self._provider(connection, provider_id)
            await self._require_other_owner(connection, provider)
            ended = await self._identities.users(connection, provider.id)
            await self._identities.delete_users(connection, provider.id)
            await self._providers.delete(connection, provider.id)
            await self._tell(connection, actor, "identity_provider.deleted", provider, accounts=len(ended))
            await self._feed.announce(connection, [provider.id, *ended])

    async def make_provisioning_token(
        self, principal: Principal, tenant_id: TenantId, provider_id: ProviderId
    ) -> tuple[str, datetime]:
        """The text, which is kept nowhere, and when it was made. The one before is void. Raises NotFound, Forbidden."""
        text, now = new_provisioning_token(), self._now()
        async with self._database.transaction(user_id=require_person(principal)) as connection:
            actor = await self._enter(connection, principal, tenant_id)
            provider = await self._provider(connection, provider_id)
            await self._providers.set_provisioning(connection, provider.id, api_keys.digest(text), now)
            await self._tell(connection, actor, "identity_provider.provisioning_token_made", provider)
            await self._feed.announce(connection, [provider.id])
        return text, now

    async def revoke_provisioning_token(
        self, principal: Principal, tenant_id: TenantId, provider_id: ProviderId
    ) -> None:
        """If there is one. Raises NotFound, Forbidden."""
        async with self._database.transaction(user_id=require_person(principal)) as connection:
            actor = await self._enter(connection, principal, tenant_id)
            provider = await self._provider(connection, provider_id)
            if await self._providers.set_provisioning(connection, provider.id, None, None):
                await self._tell(connection, actor, "identity_provider.provisioning_token_revoked", provider)
                await self._feed.announce(connection, [provider.id])

    async def _require_other_owner(self, connection: Connection, provider: IdentityProvider) -> None:
        """A tenant keeps somebody who can sign in without the provider. Raises LastOwner."""
        if not await self._identities.other_owners(connection, provider.tenant_id, provider.id):
            raise LastOwner

    def _require_usable(self, wish: ProviderWish) -> None:
        wish.require_sound()
        settings, inside = wish.settings, self._outbounds.inside
        if isinstance(settings, LdapSettings):
            inside.require_directory(settings.url, start_tls=settings.start_tls)
        else:
            inside.require_allowed(settings.address)

    def _sealed(self, secret: str | None, provider_id: ProviderId) -> bytes | None:
        return None if secret is None else self._master_key.seal(secret.encode(), owner=secret_owner(provider_id))

    async def _enter(self, connection: Connection, principal: Principal, tenant_id: TenantId) -> Actor:
        """Alone among those who change this tenant's roles, or sign in through its providers."""
        await self._members.lock_roles(connection, tenant_id)
        return await self._access.to_tenant(connection, principal, tenant_id, Role.OWNER)

    async def _provider(self, connection: Connection, provider_id: ProviderId) -> IdentityProvider:
        found = await self._providers.find(connection, provider_id) if is_uuid(provider_id) else None
        if found is None:
            raise no_such("identity provider")
        return found

    async def _tell(
        self, connection: Connection, actor: Actor, action: str, provider: IdentityProvider, **details: object
    ) -> None:
        said = {"kind": provider.settings.kind, "knownBy": provider.settings.known_by, "enabled": provider.enabled}
        target = Party(kind="identity_provider", id=provider.id, name=provider.name)
        await self._trail.of_tenant(connection, actor, Change(action=action, target=target, details=said | details))

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())
