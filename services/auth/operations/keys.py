"""API keys of a project."""

from datetime import datetime

from chassis import api_keys
from chassis.clock import Clock, from_unix_ms
from chassis.ids import is_uuid
from chassis.postgres import Connection, Database
from chassis.principals import Principal
from services.auth.domain import KeyId, Page, PageRequest, ProjectId, Role, require_name
from services.auth.keys import ApiKey, KeyKind, KeyRequest, new_key
from services.auth.master_key import MasterKey
from services.auth.operations.access import Access, no_such, require_person
from services.auth.storage.feed import FeedStorage
from services.auth.storage.keys import KeyStorage


class Keys:
    """Every member sees a project's keys, without their texts; admins make, rename and revoke them."""

    def __init__(
        self,
        database: Database,
        access: Access,
        keys: KeyStorage,
        feed: FeedStorage,
        master_key: MasterKey,
        clock: Clock,
    ) -> None:
        self._database = database
        self._access = access
        self._keys = keys
        self._feed = feed
        self._master_key = master_key
        self._clock = clock

    async def create(self, principal: Principal, project_id: ProjectId, request: KeyRequest) -> tuple[ApiKey, str]:
        """The key and its text, which a secret key never shows again. Raises Invalid, NotFound, Forbidden."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            await self._access.to_project(connection, user_id, project_id, Role.ADMIN)
            project = await self._access.project(connection, project_id)
            key, text = new_key(request, project, self._now())
            await self._keys.insert(connection, key, api_keys.digest(text), self._sealed(key, text))
            return key, text

    async def page(self, principal: Principal, project_id: ProjectId, page: PageRequest) -> Page[ApiKey]:
        """From the oldest, revoked and expired ones too. Raises NotFound."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            await self._access.to_project(connection, user_id, project_id)
            return page.cut(await self._keys.page(connection, project_id, page), lambda key: key.id)

    async def rename(self, principal: Principal, project_id: ProjectId, key_id: KeyId, name: str) -> ApiKey:
        """Raises Invalid, NotFound, Forbidden."""
        user_id, name = require_person(principal), require_name(name)
        async with self._database.transaction(user_id=user_id) as connection:
            await self._access.to_project(connection, user_id, project_id, Role.ADMIN)
            key = await self._keys.rename(connection, project_id, key_id, name) if is_uuid(key_id) else None
        if key is None:
            raise no_such("key")
        return key

    async def revoke(self, principal: Principal, project_id: ProjectId, key_id: KeyId) -> None:
        """For good; revoking it again changes nothing. Raises NotFound, Forbidden."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            await self._access.to_project(connection, user_id, project_id, Role.ADMIN)
            if not is_uuid(key_id) or not await self._keys.exists(connection, project_id, key_id):
                raise no_such("key")
            if await self._keys.revoke(connection, project_id, key_id, self._now()):
                await self._feed.announce(connection, [key_id])

    async def publishable_text(self, principal: Principal, project_id: ProjectId, key_id: KeyId) -> str:
        """The text of a live publishable key, for whoever belongs to the project: it is public by nature.

        Raises NotFound for any other key, secret ones above all.
        """
        async with self._database.transaction(**_doors(principal)) as connection:
            await self._enter(connection, principal, project_id)
            found = None
            if is_uuid(key_id):
                found = await self._keys.sealed_text(connection, project_id, key_id, self._now())
        if found is None:
            raise no_such("publishable key")
        return self._master_key.unseal(found.sealed, owner=found.key_id).decode()

    async def _enter(self, connection: Connection, principal: Principal, project_id: ProjectId) -> None:
        if principal.kind == "user":
            await self._access.to_project(connection, require_person(principal), project_id)
        elif principal.project_id != project_id:
            raise no_such("project")

    def _sealed(self, key: ApiKey, text: str) -> bytes | None:
        if key.kind == KeyKind.SECRET:
            return None
        return self._master_key.seal(text.encode(), owner=key.id)

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())


def _doors(principal: Principal) -> dict[str, str]:
    if principal.kind == "user":
        return {"user_id": principal.subject}
    return {"tenant_id": principal.tenant_id}
