"""API keys of a project."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from chassis import api_keys
from chassis.audit import Party
from chassis.clock import Clock, from_unix_ms, rfc3339
from chassis.ids import is_uuid
from chassis.postgres import Connection, Database
from chassis.principals import Principal
from services.auth.domain import MOST_KEYS, KeyId, Page, PageRequest, ProjectId, Role
from services.auth.errors import TooManyKeys
from services.auth.keys import ApiKey, KeyChange, KeyKind, KeyRequest, changed_key, new_key, rotated
from services.auth.master_key import MasterKey
from services.auth.operations.access import Access, Actor, no_such, require_person
from services.auth.operations.audit import AuditTrail, Change, told
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.feed import FeedStorage
from services.auth.storage.keys import KeyStorage


class Keys:
    """Every member sees a project's keys, without their texts; admins make, change, rotate and revoke them."""

    def __init__(
        self,
        database: Database,
        access: Access,
        accounts: AccountStorage,
        keys: KeyStorage,
        feed: FeedStorage,
        trail: AuditTrail,
        master_key: MasterKey,
        clock: Clock,
    ) -> None:
        self._database = database
        self._access = access
        self._accounts = accounts
        self._keys = keys
        self._feed = feed
        self._trail = trail
        self._master_key = master_key
        self._clock = clock

    async def create(self, principal: Principal, project_id: ProjectId, request: KeyRequest) -> tuple[ApiKey, str]:
        """The key and its text, which a secret key never shows again.

        Raises Invalid, NotFound, Forbidden, TooManyKeys.
        """
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            actor = await self._access.to_project(connection, principal, project_id, Role.ADMIN)
            most = await self._most(connection, actor)
            project = await self._access.held_project(connection, principal, project_id)
            key, text = new_key(request, project, self._now())
            await self._require_room(connection, actor, most)
            await self._insert(connection, key, text, most)
            await self._tell(connection, actor, "key.created", key, **_rights(key))
            return key, text

    async def page(self, principal: Principal, project_id: ProjectId, page: PageRequest) -> Page[ApiKey]:
        """From the oldest, revoked and expired ones too. Raises NotFound."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            await self._access.to_project(connection, principal, project_id)
            found = await self._keys.page(connection, project_id, page)
        return page.cut(found, lambda key: key.id, lambda key: sum(map(len, key.allowed_origins)))

    async def change(self, principal: Principal, project_id: ProjectId, key_id: KeyId, change: KeyChange) -> ApiKey:
        """Raises Invalid, NotFound, Forbidden, and KeyEnded where more than the name of a dead key would change."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            actor = await self._access.to_project(connection, principal, project_id, Role.ADMIN)
            before = await self._key(connection, project_id, key_id)
            key = changed_key(before, change, self._now())
            if key == before:
                return key
            await self._keys.update(connection, key)
            if key == replace(before, name=key.name):
                await self._tell(connection, actor, "key.renamed", key)
            else:
                await self._tell(connection, actor, "key.changed", key, **_rights(key))
                await self._feed.announce(connection, [key_id])
            return key

    async def rotate(
        self, principal: Principal, project_id: ProjectId, key_id: KeyId, grace_seconds: int
    ) -> tuple[ApiKey, str]:
        """A key with the same rights, and its text; the one before goes on working for the grace, 0 for not at all.

        Raises Invalid, NotFound, Forbidden, KeyEnded, and TooManyKeys where there is no room for both.
        """
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            actor = await self._access.to_project(connection, principal, project_id, Role.ADMIN)
            most = await self._most(connection, actor)
            await self._access.held_project(connection, principal, project_id)
            before = await self._key(connection, project_id, key_id)
            ending, key, text = rotated(before, grace_seconds, self._now())
            if grace_seconds:
                await self._require_room(connection, actor, most)
            await self._keys.update(connection, ending)
            await self._insert(connection, key, text, most)
            await self._tell(connection, actor, "key.rotated", ending, successor=key.id, **_rights(ending))
            await self._feed.announce(connection, [key_id])
            return key, text

    async def revoke(self, principal: Principal, project_id: ProjectId, key_id: KeyId) -> None:
        """For good; revoking it again changes nothing. Raises NotFound, Forbidden."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            actor = await self._access.to_project(connection, principal, project_id, Role.ADMIN)
            key = await self._key(connection, project_id, key_id)
            if await self._keys.revoke(connection, project_id, key_id, self._now()):
                await self._tell(connection, actor, "key.revoked", key)
                await self._feed.announce(connection, [key_id])

    async def publishable_text(self, principal: Principal, project_id: ProjectId, key_id: KeyId) -> str:
        """The text of a live publishable key, for whoever belongs to the project: it is public by nature.

        Raises NotFound for any other key, secret ones above all.
        """
        async with self._database.transaction(**_settings(principal)) as connection:
            await self._enter(connection, principal, project_id)
            found = None
            if is_uuid(key_id):
                found = await self._keys.sealed_text(connection, project_id, key_id, self._now())
        if found is None:
            raise no_such("publishable key")
        return self._master_key.unseal(found.sealed, owner=found.key_id).decode()

    async def _most(self, connection: Connection, actor: Actor) -> int:
        """How many living keys the tenant may have; alone among those who make keys of it. To be asked for before a
        project is held."""
        return MOST_KEYS[await self._accounts.lock_plan(connection, actor.tenant_id)]

    async def _require_room(self, connection: Connection, actor: Actor, most: int) -> None:
        if await self._keys.count_alive(connection, actor.tenant_id, self._now(), most) >= most:
            raise TooManyKeys(most)

    async def _insert(self, connection: Connection, key: ApiKey, text: str, most: int) -> None:
        """Into a project that is held. Of the tenant's dead keys as many are kept as may be alive."""
        await self._keys.insert(connection, key, api_keys.digest(text), self._sealed(key, text))
        await self._keys.delete_oldest(connection, key.tenant_id, key.created_at, most)

    async def _enter(self, connection: Connection, principal: Principal, project_id: ProjectId) -> None:
        if principal.kind == "user":
            await self._access.to_project(connection, principal, project_id)
        elif principal.project_id != project_id:
            raise no_such("project")

    async def _key(self, connection: Connection, project_id: ProjectId, key_id: KeyId) -> ApiKey:
        key = await self._keys.lock(connection, project_id, key_id) if is_uuid(key_id) else None
        if key is None:
            raise no_such("key")
        return key

    async def _tell(self, connection: Connection, actor: Actor, action: str, key: ApiKey, **details: Any) -> None:
        target = Party(kind="key", id=key.id, name=key.name)
        change = Change(action=action, target=target, project_id=key.project_id, details=details)
        await self._trail.of_tenant(connection, actor, change)

    def _sealed(self, key: ApiKey, text: str) -> bytes | None:
        if key.kind == KeyKind.SECRET:
            return None
        return self._master_key.seal(text.encode(), owner=key.id)

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())


def _rights(key: ApiKey) -> dict[str, Any]:
    """What the audit log says of what a key may."""
    return {
        "kind": key.kind,
        "scopes": list(key.scopes),
        **told("allowedOrigins", key.allowed_origins),
        "expiresAt": rfc3339(key.expires_at) if key.expires_at else "",
    }


def _settings(principal: Principal) -> dict[str, str]:
    if principal.kind == "user":
        return {"user_id": principal.subject}
    return {"tenant_id": principal.tenant_id}
