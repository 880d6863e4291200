"""Identity providers and the accounts that they made."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.types.json import Jsonb

from chassis.postgres import Connection
from services.auth.domain import PageRequest, Role, SessionId, TenantId, User, UserId
from services.auth.identity_providers import (
    AdmissionRules,
    IdentityProvider,
    ProviderId,
    ProvisionedAccount,
    RemovedMember,
    RoleMapping,
    Sought,
)
from services.auth.provider_settings import KindSettings, LdapSettings, OidcSettings, SamlSettings

_SELECT: Final = (
    "SELECT id::text AS id, tenant_id::text AS tenant_id, kind, name, enabled, admission, settings, sealed_secret,"
    " created_at, updated_at, provisioning_since FROM identity_providers"
)
#: Accounts that a provider may see, of those that are sought.
_SOUGHT: Final = (
    " FROM identities JOIN users ON users.id = identities.user_id"
    " WHERE identities.provider_id = %(provider)s AND identities.removed_at IS NULL"
    " AND (%(user)s::uuid IS NULL OR identities.user_id = %(user)s::uuid)"
    " AND (%(email)s::text IS NULL OR lower(users.email) = lower(%(email)s::text))"
    " AND (%(subject)s::text IS NULL OR identities.subject = %(subject)s::text)"
)
#: An address that was given out again is of several accounts: of who has left, and of whoever has it now.
_LIKELIEST_FIRST: Final = (
    " ORDER BY identities.deactivated_at IS NOT NULL, coalesce(identities.signed_on_at, identities.created_at) DESC,"
    " identities.user_id DESC"
)
_KINDS: Final[dict[str, type[KindSettings]]] = {kind.kind: kind for kind in (OidcSettings, LdapSettings, SamlSettings)}


class IdentityProviderStorage:
    """Doors: `tenant_id`; `provider_id` for `find`."""

    async def find(self, connection: Connection, provider_id: ProviderId) -> IdentityProvider | None:
        cursor = await connection.execute(_SELECT + " WHERE id = %s", (provider_id,))
        row = await cursor.fetchone()
        return _provider(row) if row else None

    async def page(self, connection: Connection, tenant_id: TenantId, page: PageRequest) -> Sequence[IdentityProvider]:
        """From the oldest; one more than the page's size, where there are so many."""
        cursor = await connection.execute(
            _SELECT + " WHERE tenant_id = %s AND id > %s ORDER BY identity_providers.id LIMIT %s",
            (tenant_id, page.after, page.size + 1),
        )
        return [_provider(row) for row in await cursor.fetchall()]

    async def count(self, connection: Connection, tenant_id: TenantId) -> int:
        cursor = await connection.execute(
            "SELECT count(*) AS providers FROM identity_providers WHERE tenant_id = %s", (tenant_id,)
        )
        [row] = await cursor.fetchall()
        return int(row["providers"])

    async def insert(self, connection: Connection, provider: IdentityProvider) -> None:
        await connection.execute(
            "INSERT INTO identity_providers"
            " (id, tenant_id, kind, name, enabled, admission, settings, sealed_secret, created_at, updated_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                provider.id, provider.tenant_id, provider.settings.kind, provider.name, provider.enabled,
                _written(provider.admission), Jsonb(asdict(provider.settings)), provider.sealed_secret,
                provider.created_at, provider.updated_at,
            ),
        )  # fmt: skip

    async def update(self, connection: Connection, provider: IdentityProvider) -> None:
        """All but id, tenant, kind and creation."""
        await connection.execute(
            "UPDATE identity_providers SET name = %s, enabled = %s, admission = %s, settings = %s, sealed_secret = %s,"
            " updated_at = %s WHERE id = %s",
            (
                provider.name, provider.enabled, _written(provider.admission), Jsonb(asdict(provider.settings)),
                provider.sealed_secret, provider.updated_at, provider.id,
            ),
        )  # fmt: skip

    async def set_provisioning(
        self, connection: Connection, provider_id: ProviderId, token_hash: bytes | None, now: datetime | None
    ) -> bool:
        """The one token that is good from now on, and when it was made; None and None: none is. False: as before."""
        cursor = await connection.execute(
            "UPDATE identity_providers SET provisioning_hash = %s, provisioning_since = %s"
            " WHERE id = %s AND provisioning_hash IS DISTINCT FROM %s",
            (token_hash, now, provider_id, token_hash),
        )
        return cursor.rowcount == 1

    async def disable_all(self, connection: Connection, tenant_id: TenantId, now: datetime) -> Sequence[ProviderId]:
        """Of a tenant, and no provisioning token is good; which ones that changes."""
        cursor = await connection.execute(
            "UPDATE identity_providers SET enabled = false, provisioning_hash = NULL, provisioning_since = NULL,"
            " updated_at = %s WHERE tenant_id = %s AND (enabled OR provisioning_hash IS NOT NULL)"
            " RETURNING id::text AS id",
            (now, tenant_id),
        )
        return sorted(ProviderId(row["id"]) for row in await cursor.fetchall())

    async def delete(self, connection: Connection, provider_id: ProviderId) -> None:
        await connection.execute("DELETE FROM identity_providers WHERE id = %s", (provider_id,))


class IdentityStorage:
    """Door: `tenant_id`; `user_id` too where a user changes."""

    async def find(self, connection: Connection, provider_id: ProviderId, subject: str) -> User | None:
        cursor = await connection.execute(
            "SELECT users.id::text AS id, users.email FROM identities JOIN users ON users.id = identities.user_id"
            " WHERE identities.provider_id = %s AND identities.subject = %s",
            (provider_id, subject),
        )
        row = await cursor.fetchone()
        return User(**row) if row else None

    async def insert(
        self, connection: Connection, user: User, provider: IdentityProvider, subject: str, now: datetime
    ) -> None:
        """With its user. The key of their address is none that an address can have: `email_key` folds capitals."""
        await connection.execute(
            "INSERT INTO users (id, email, email_key, created_at) VALUES (%s, %s, %s, %s)",
            (user.id, user.email, f"SSO {user.id}", now),
        )
        await connection.execute(
            "INSERT INTO identities (user_id, tenant_id, provider_id, subject, created_at) VALUES (%s, %s, %s, %s, %s)",
            (user.id, provider.tenant_id, provider.id, subject, now),
        )

    async def rename(self, connection: Connection, user: User) -> None:
        """Their address, as the provider says it now."""
        await connection.execute("UPDATE users SET email = %s WHERE id = %s", (user.email, user.id))

    async def note_sign_on(self, connection: Connection, user_id: UserId, now: datetime) -> None:
        await connection.execute("UPDATE identities SET signed_on_at = %s WHERE user_id = %s", (now, user_id))

    async def remove(self, connection: Connection, tenant_id: TenantId, user_id: UserId, now: datetime) -> bool:
        """They stay out until `readmit`. False: no provider of the tenant has made this account."""
        cursor = await connection.execute(
            "UPDATE identities SET removed_at = %s WHERE tenant_id = %s AND user_id = %s", (now, tenant_id, user_id)
        )
        return cursor.rowcount == 1

    async def readmit(self, connection: Connection, tenant_id: TenantId, user_id: UserId) -> bool:
        """False where nobody has removed or deactivated them."""
        cursor = await connection.execute(
            "UPDATE identities SET removed_at = NULL, deactivated_at = NULL WHERE tenant_id = %s AND user_id = %s"
            " AND (removed_at IS NOT NULL OR deactivated_at IS NOT NULL)",
            (tenant_id, user_id),
        )
        return cursor.rowcount == 1

    async def is_removed(self, connection: Connection, user_id: UserId) -> bool:
        cursor = await connection.execute(
            "SELECT FROM identities WHERE user_id = %s AND removed_at IS NOT NULL", (user_id,)
        )
        return await cursor.fetchone() is not None

    async def is_deactivated(self, connection: Connection, user_id: UserId) -> bool:
        cursor = await connection.execute(
            "SELECT FROM identities WHERE user_id = %s AND deactivated_at IS NOT NULL", (user_id,)
        )
        return await cursor.fetchone() is not None

    async def set_deactivated(self, connection: Connection, user_id: UserId, now: datetime | None) -> None:
        """By the provider; None: they are active."""
        await connection.execute("UPDATE identities SET deactivated_at = %s WHERE user_id = %s", (now, user_id))

    async def count(self, connection: Connection, provider_id: ProviderId, sought: Sought) -> int:
        cursor = await connection.execute("SELECT count(*) AS accounts" + _SOUGHT, _criteria(provider_id, sought))
        [row] = await cursor.fetchall()
        return int(row["accounts"])

    async def find_accounts(
        self, connection: Connection, provider_id: ProviderId, sought: Sought, *, skipped: int, most: int
    ) -> Sequence[ProvisionedAccount]:
        """By user id; those of one address: who is active, and has signed in last, comes first."""
        cursor = await connection.execute(
            "SELECT users.id::text AS id, users.email, identities.subject, identities.created_at,"
            " identities.deactivated_at IS NULL AS active"
            + _SOUGHT
            + (_LIKELIEST_FIRST if sought.email is not None else " ORDER BY identities.user_id")
            + " OFFSET %(skipped)s LIMIT %(most)s",
            {**_criteria(provider_id, sought), "skipped": skipped, "most": most},
        )
        return [
            ProvisionedAccount(user=User(id=row.pop("id"), email=row.pop("email")), **row)
            for row in await cursor.fetchall()
        ]

    async def removed(self, connection: Connection, tenant_id: TenantId, page: PageRequest) -> Sequence[RemovedMember]:
        """And the deactivated. By user id; one more than the page's size, where there are so many."""
        cursor = await connection.execute(
            "SELECT users.id::text AS id, users.email, identities.provider_id::text AS provider_id,"
            " identities.removed_at, identities.deactivated_at"
            " FROM identities JOIN users ON users.id = identities.user_id"
            " WHERE identities.tenant_id = %s AND identities.user_id > %s"
            " AND (identities.removed_at IS NOT NULL OR identities.deactivated_at IS NOT NULL)"
            " ORDER BY identities.user_id LIMIT %s",
            (tenant_id, page.after, page.size + 1),
        )
        return [
            RemovedMember(user=User(id=row.pop("id"), email=row.pop("email")), **row) for row in await cursor.fetchall()
        ]

    async def users(self, connection: Connection, provider_id: ProviderId) -> Sequence[UserId]:
        cursor = await connection.execute(
            "SELECT user_id::text AS user_id FROM identities WHERE provider_id = %s ORDER BY user_id", (provider_id,)
        )
        return [UserId(row["user_id"]) for row in await cursor.fetchall()]

    async def other_owners(self, connection: Connection, tenant_id: TenantId, provider_id: ProviderId) -> int:
        """Owners of the tenant who have consented and can sign in without the provider: by a password, or through
        another that is enabled."""
        cursor = await connection.execute(
            "SELECT count(*) AS owners FROM memberships WHERE tenant_id = %s AND role = 'owner' AND consented"
            " AND user_id NOT IN (SELECT user_id FROM identities JOIN identity_providers AS provider"
            " ON provider.id = identities.provider_id WHERE provider.id = %s OR NOT provider.enabled)",
            (tenant_id, provider_id),
        )
        [row] = await cursor.fetchall()
        return int(row["owners"])

    async def owners_beside(self, connection: Connection, tenant_id: TenantId, user_id: UserId) -> int:
        """Other owners of the tenant who have consented and can sign in: by a password, or through a provider that is
        enabled."""
        cursor = await connection.execute(
            "SELECT count(*) AS owners FROM memberships"
            " WHERE tenant_id = %s AND role = 'owner' AND consented AND user_id <> %s"
            " AND user_id NOT IN (SELECT user_id FROM identities JOIN identity_providers AS provider"
            " ON provider.id = identities.provider_id WHERE NOT provider.enabled)",
            (tenant_id, user_id),
        )
        [row] = await cursor.fetchall()
        return int(row["owners"])

    async def end_sessions(self, connection: Connection, provider_id: ProviderId, now: datetime) -> Sequence[SessionId]:
        """Of the accounts that the provider made, which have no others; which ones that were.

        Also those that nothing renews any more: an access token may outlive its session.
        """
        cursor = await connection.execute(
            "UPDATE sessions SET revoked_at = %s WHERE revoked_at IS NULL"
            " AND user_id IN (SELECT user_id FROM identities WHERE provider_id = %s) RETURNING id::text AS id",
            (now, provider_id),
        )
        return [SessionId(row["id"]) for row in await cursor.fetchall()]

    async def end_sessions_of(self, connection: Connection, user_id: UserId, now: datetime) -> Sequence[SessionId]:
        """Of one account that a provider has made, as `end_sessions`."""
        cursor = await connection.execute(
            "UPDATE sessions SET revoked_at = %s WHERE revoked_at IS NULL AND user_id = %s RETURNING id::text AS id",
            (now, user_id),
        )
        return [SessionId(row["id"]) for row in await cursor.fetchall()]

    async def delete_users(self, connection: Connection, provider_id: ProviderId) -> None:
        """With their memberships and sessions."""
        await connection.execute(
            "DELETE FROM users WHERE id IN (SELECT user_id FROM identities WHERE provider_id = %s)", (provider_id,)
        )


def _criteria(provider_id: ProviderId, sought: Sought) -> dict[str, str | None]:
    return {"provider": provider_id, "user": sought.user_id, "email": sought.email, "subject": sought.subject}


def _written(admission: AdmissionRules) -> Jsonb:
    role = admission.default_role
    return Jsonb(
        {
            "email_domains": admission.email_domains,
            "default_role": role.word if role else None,
            "role_claim": admission.role_claim,
            "role_mappings": [[mapping.value, mapping.role.word] for mapping in admission.role_mappings],
        }
    )


def _provider(row: psycopg.rows.DictRow) -> IdentityProvider:
    kind, admission = row.pop("kind"), row["admission"]
    role = admission["default_role"]
    read: dict[str, Any] = {
        "admission": AdmissionRules(
            email_domains=tuple(admission["email_domains"]),
            default_role=Role.of(role) if role else None,
            role_claim=admission["role_claim"],
            role_mappings=tuple(
                RoleMapping(value=value, role=Role.of(word)) for value, word in admission["role_mappings"]
            ),
        ),
        "settings": _settings(kind, row["settings"]),
    }
    return IdentityProvider(**{**row, **read})


def _settings(kind: str, stored: dict[str, Any]) -> KindSettings:
    """JSON has lists where settings have tuples."""
    lasting: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return _KINDS[kind](**lasting)
