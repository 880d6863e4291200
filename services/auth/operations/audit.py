"""The audit log: what every operation leaves in it, and what its readers are shown."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from typing import Any

from chassis import audit, pages
from chassis.audit import Party
from chassis.clock import Clock, from_unix_ms
from chassis.errors import Invalid
from chassis.ids import is_uuid
from chassis.postgres import Connection, Database
from chassis.principals import Principal
from services.auth.audit_chain import PLATFORM, SealedEntry, says_the_same
from services.auth.audit_heads import HeadSigner
from services.auth.domain import Membership, ProjectId, Role, TenantId, UserId, beginning
from services.auth.operations.access import Access, Actor, no_such
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.audit import AuditStorage
from services.auth.storage.row_access import show_rows

_SERVICE = "auth"
_LONGEST_DOCUMENT = 64_000

#: Of the list in an entry's details.
_MOST_TOLD_CHARACTERS = 800


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an operation did."""

    #: The kind of thing and what happened to it: "key.created".
    action: str
    target: Party
    project_id: str = ""
    #: Where the request came from, where that matters.
    address: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def told(name: str, values: Sequence[str]) -> dict[str, Any]:
    """A list in an entry's details; of a long one its beginning, how many there are, and the SHA-256 of their lines."""
    lengths = accumulate(map(len, values))
    shown = [value for value, length in zip(values, lengths, strict=True) if length <= _MOST_TOLD_CHARACTERS]
    if len(shown) == len(values):
        return {name: shown}
    digest = hashlib.sha256("\n".join(values).encode()).hexdigest()
    return {name: shown, f"{name}Count": len(values), f"{name}Sha256": digest}


class AuditTrail:
    """A step of every operation that changes something, in its transaction, before it announces to the feed.

    A chain belongs to one transaction at a time, so chains are taken late: after every row that the operation changes
    (of an account: password, second factor, sessions, in this order), in the order of tenants' ids, and always before
    the feed. So no two transactions can wait for each other.
    """

    def __init__(self, storage: AuditStorage, accounts: AccountStorage, clock: Clock) -> None:
        self._storage = storage
        self._accounts = accounts
        self._clock = clock

    async def of_tenant(self, connection: Connection, actor: Actor, *changes: Change) -> None:
        """Changes in the tenant whose rows are shown."""
        await self.by(connection, actor.tenant_id, _person(actor.user_id), *changes)

    async def by(self, connection: Connection, tenant_id: TenantId, actor: Party, *changes: Change) -> None:
        """The same by somebody who need not be a member."""
        for change in changes:
            entry = audit.Entry(
                tenant_id=tenant_id,
                at=self._now(),
                service=_SERVICE,
                action=change.action,
                actor=actor,
                target=change.target,
                project_id=change.project_id,
                address=change.address,
                details=change.details,
            )
            await self._storage.append(connection, tenant_id, entry.id, entry.project_id, audit.document(entry))

    async def of_person(self, connection: Connection, user_id: UserId, action: str, **said: Any) -> None:
        """What a person did about their own account, which is told to each tenant that they have chosen themselves, and
        to none to which others have added them; their rows are shown."""
        memberships = await self._accounts.memberships(connection, user_id)
        await self.of_member(connection, memberships, user_id, action, **said)

    async def of_member(
        self, connection: Connection, memberships: Sequence[Membership], user_id: UserId, action: str, **said: Any
    ) -> None:
        """The same where the memberships, in the order of tenants' ids, are known. Leaves no tenant's rows shown."""
        person = _person(user_id)
        chosen = [membership.tenant.id for membership in memberships if membership.consented]
        for tenant_id in chosen or [PLATFORM]:
            await show_rows(connection, "tenant_id", tenant_id)
            await self.by(connection, tenant_id, person, Change(action=action, target=person, **said))
        await show_rows(connection, "tenant_id", "")

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())


def _person(user_id: UserId) -> Party:
    return Party(kind="user", id=user_id)


@dataclass(frozen=True, kw_only=True)
class AuditPage:
    """Part of a chain, and where the chain ends."""

    entries: Sequence[SealedEntry]
    #: Where the next part begins; empty at the end.
    next_token: str
    #: Covers the whole chain, whatever is shown of it; empty where the chain is not the one that was signed before.
    signed_head: str


@dataclass(frozen=True, kw_only=True)
class ForeignEntry:
    """An entry that another service has made, in canonical form."""

    id: str
    tenant_id: TenantId
    project_id: str
    document: str


class AuditLog:
    """Admins read their tenant's chain; a key with `audit:read` what is about its own project."""

    def __init__(self, database: Database, access: Access, storage: AuditStorage, signer: HeadSigner) -> None:
        self._database = database
        self._access = access
        self._storage = storage
        self._signer = signer

    async def page(self, principal: Principal, tenant_id: TenantId, *, after: int, token: str, size: int) -> AuditPage:
        """From the oldest that follows entry `after`, or the page before. Raises Invalid, NotFound, Forbidden."""
        after, most = _position(token) if token else after, pages.page_size(size)
        settings = {"user_id": principal.subject} if principal.kind == "user" else {}
        async with self._database.transaction(**settings) as connection:
            project_id = await self._enter(connection, principal, tenant_id)
            found = await self._storage.page(connection, tenant_id, after, most + 1, project_id)
        shown = beginning(found, most, lambda entry: len(entry.document.encode()))
        return AuditPage(
            entries=shown,
            next_token=str(shown[-1].sequence) if len(found) > len(shown) else "",
            signed_head=await self._signer.signed_now(tenant_id),
        )

    async def record(self, entries: Sequence[ForeignEntry]) -> None:
        """Seals what another service has kept since its change; entries that are there already stay as they are.

        Raises Invalid.
        """
        for entry in entries:
            _require_sound(entry)
        for tenant_id in sorted({entry.tenant_id for entry in entries}):
            async with self._database.transaction(tenant_id=tenant_id) as connection:
                for entry in entries:
                    if entry.tenant_id == tenant_id:
                        await self._storage.append(connection, tenant_id, entry.id, entry.project_id, entry.document)

    async def _enter(self, connection: Connection, principal: Principal, tenant_id: TenantId) -> ProjectId | None:
        """Shows the tenant's rows; the project to which the principal is confined, if any."""
        if principal.kind == "user":
            await self._access.to_tenant(connection, principal, tenant_id, Role.ADMIN)
            return None
        if principal.tenant_id != tenant_id:
            raise no_such("tenant")
        principal.require("audit:read")
        await show_rows(connection, "tenant_id", tenant_id)
        return ProjectId(principal.project_id)


def _position(token: str) -> int:
    if not (token.isascii() and token.isdecimal() and len(token) < 16):
        raise Invalid.fields({"pageToken": "is not a token that a list has answered"})
    return int(token)


def _require_sound(entry: ForeignEntry) -> None:
    ids = [entry.id, entry.tenant_id, *([entry.project_id] if entry.project_id else [])]
    if not all(map(is_uuid, ids)) or len(entry.document) > _LONGEST_DOCUMENT:
        raise Invalid("An entry of the audit log has ids, and a document of bounded length.")
    if not says_the_same(entry.document, entry.id, entry.tenant_id, entry.project_id):
        raise Invalid("The document of an entry of the audit log has the ids of the entry.")
