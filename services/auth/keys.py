"""API keys: what a valid one looks like, and the making of a new one."""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from chassis import api_keys
from chassis.errors import Invalid
from chassis.ids import uuid7
from services.auth.domain import KeyId, Project, ProjectId, TenantId, name_fault
from services.auth.errors import KeyEnded


class KeyKind(StrEnum):
    """What a key is for."""

    #: Write-only; safe inside a web page.
    PUBLISHABLE = "publishable"
    SECRET = "secret"  # noqa: S105 - a kind of key, not one


#: What a secret key may be allowed.
SECRET_SCOPES = frozenset({"ingest:write", "query:read", "config:read", "config:write", "audit:read", "usage:read"})

#: All that a publishable key is ever allowed, and what a secret key gets for which no scope was chosen.
INGEST_SCOPES = ("ingest:write",)

#: An allowed origin that stands for every origin.
ANY_ORIGIN = "*"

#: Characters of a key that are shown afterwards, to recognise it by: its prefix and eight random ones.
_SHOWN_CHARACTERS = 11

#: A key that was rotated goes on working for 30 days at most.
MOST_GRACE_SECONDS = 30 * 86_400

_MOST_ORIGINS = 100
#: A scheme, a host of 253 (RFC 1035) and a port have fewer.
_MOST_ORIGIN_CHARACTERS = 300
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?P<host>[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HIGHEST_PORT = 65_535
_PREFIXES = {KeyKind.PUBLISHABLE: api_keys.PUBLISHABLE_PREFIX, KeyKind.SECRET: api_keys.SECRET_PREFIX}


@dataclass(frozen=True, kw_only=True)
class KeyRequest:
    """What somebody asks for; `None` in `kind` is "not said"."""

    name: str
    kind: KeyKind | None
    scopes: Sequence[str]
    allowed_origins: Sequence[str]
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key without its text."""

    id: KeyId
    tenant_id: TenantId
    project_id: ProjectId
    name: str
    kind: str
    scopes: tuple[str, ...]
    #: Origins from which a publishable key may be used, or `("*",)`; empty for a secret key.
    allowed_origins: tuple[str, ...]
    #: The first characters of its text.
    prefix: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    #: Within minutes; None where it was never used, or before that was noted.
    last_used_at: datetime | None = None
    #: Whether `expires_at` was set by a rotation; `expires_before_grace` is what it was until then.
    in_grace: bool = False
    expires_before_grace: datetime | None = None

    @property
    def own_end(self) -> datetime | None:
        """When it would expire had it not been rotated."""
        return self.expires_before_grace if self.in_grace else self.expires_at

    def with_own_end(self, end: datetime | None) -> "ApiKey":
        return replace(self, expires_at=end, in_grace=False, expires_before_grace=None)

    def is_alive(self, now: datetime) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, kw_only=True)
class KeyChange:
    """What shall become of a key; what is empty or None stays."""

    name: str = ""
    allowed_origins: Sequence[str] = ()
    expires_at: datetime | None = None
    never_expires: bool = False


@dataclass(frozen=True, kw_only=True)
class SealedText:
    """A publishable key's text, encrypted for its id."""

    key_id: KeyId
    sealed: bytes


def new_key(request: KeyRequest, project: Project, now: datetime) -> tuple[ApiKey, str]:
    """The key and its text. Raises Invalid with every fault of the request."""
    kind = _require_valid(request, now)
    text = _random_text(kind)
    key = ApiKey(
        id=KeyId(str(uuid7())),
        tenant_id=project.tenant_id,
        project_id=project.id,
        name=request.name.strip(),
        kind=kind.value,
        scopes=tuple(sorted(set(request.scopes))) or INGEST_SCOPES,
        allowed_origins=_normal_origins(request.allowed_origins),
        prefix=text[:_SHOWN_CHARACTERS],
        created_at=now,
        expires_at=request.expires_at,
    )
    return key, text


def changed_key(key: ApiKey, change: KeyChange, now: datetime) -> ApiKey:
    """The key after the change. Raises Invalid, and KeyEnded where more than the name of a dead key would change."""
    possible = {
        "name": name_fault(change.name) if change.name else None,
        "allowedOrigins": _origins_fault(KeyKind(key.kind), change.allowed_origins) if change.allowed_origins else None,
        "expiresAt": _expiry_fault(change.expires_at, now),
    }
    _refuse(possible)
    if (change.allowed_origins or change.expires_at or change.never_expires) and not key.is_alive(now):
        raise KeyEnded
    changed = replace(
        key,
        name=change.name.strip() or key.name,
        allowed_origins=_normal_origins(change.allowed_origins) or key.allowed_origins,
    )
    if change.never_expires:
        return changed.with_own_end(None)
    return changed.with_own_end(change.expires_at) if change.expires_at else changed


def rotated(key: ApiKey, grace_seconds: int, now: datetime) -> tuple[ApiKey, ApiKey, str]:
    """The key, which ends after the grace, its successor with the same rights, and the successor's text.

    Rotated again in its grace it works no longer for that, and the successor ends when the key would have.

    Raises Invalid, and KeyEnded for a key that is revoked or expired.
    """
    if not 0 <= grace_seconds <= MOST_GRACE_SECONDS:
        raise Invalid.fields({"graceSeconds": f"must be from 0 to {MOST_GRACE_SECONDS}"})
    if not key.is_alive(now):
        raise KeyEnded
    text = _random_text(KeyKind(key.kind))
    successor = replace(
        key.with_own_end(key.own_end),
        id=KeyId(str(uuid7())),
        prefix=text[:_SHOWN_CHARACTERS],
        created_at=now,
        last_used_at=None,
    )
    end = now + timedelta(seconds=grace_seconds)
    end = min(end, key.expires_at) if key.expires_at else end
    ending = replace(key, expires_at=end, in_grace=True, expires_before_grace=key.own_end)
    return ending, successor, text


def _normal_origins(origins: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(normal_origin, origins))))


def normal_origin(origin: str) -> str | None:
    """A bare origin as browsers send it (RFC 6454): small letters, no default port. None for anything else."""
    if origin == ANY_ORIGIN:
        return origin
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return None
    scheme, host = match["scheme"].lower(), match["host"].lower()
    if match["port"] is None:
        return f"{scheme}://{host}"
    port = int(match["port"])
    if not 0 < port <= _HIGHEST_PORT:
        return None
    return f"{scheme}://{host}" if _DEFAULT_PORTS.get(scheme) == port else f"{scheme}://{host}:{port}"


def _require_valid(request: KeyRequest, now: datetime) -> KeyKind:
    if request.kind is None:
        raise Invalid.fields({"kind": "must be publishable or secret"})
    possible = {
        "name": name_fault(request.name),
        "scopes": _scopes_fault(request.kind, request.scopes),
        "allowedOrigins": _origins_fault(request.kind, request.allowed_origins),
        "expiresAt": _expiry_fault(request.expires_at, now),
    }
    _refuse(possible)
    return request.kind


def _refuse(possible: Mapping[str, str | None]) -> None:
    """Raises Invalid with the faults that there are."""
    faults = {field: fault for field, fault in possible.items() if fault}
    if faults:
        raise Invalid.fields(faults)


def _expiry_fault(expires_at: datetime | None, now: datetime) -> str | None:
    return "must be in the future" if expires_at and expires_at <= now else None


def _scopes_fault(kind: KeyKind, scopes: Sequence[str]) -> str | None:
    if kind is KeyKind.PUBLISHABLE:
        return None if set(scopes) <= set(INGEST_SCOPES) else "a publishable key can only have ingest:write"
    return None if SECRET_SCOPES.issuperset(scopes) else f"must be among {', '.join(sorted(SECRET_SCOPES))}"


def _origins_fault(kind: KeyKind, origins: Sequence[str]) -> str | None:
    if kind is KeyKind.SECRET:
        return "belong to publishable keys; a secret key must not be used in a browser" if origins else None
    if not origins:
        return 'are required for a publishable key; give ["*"] to allow any'
    if len(origins) > _MOST_ORIGINS:
        return f"may be {_MOST_ORIGINS} at most"
    if any(len(origin) > _MOST_ORIGIN_CHARACTERS for origin in origins):
        return f"must each have {_MOST_ORIGIN_CHARACTERS} characters at most"
    if ANY_ORIGIN in origins and len(origins) > 1:
        return '"*" stands alone'
    if not all(map(normal_origin, origins)):
        return "must each be a bare origin such as https://shop.example.com or http://localhost:3000, without a path"
    return None


def new_provisioning_token() -> str:
    """With which an identity provider says who has left: a text of the same form, which is no API key."""
    return _random_text_after(api_keys.PROVISIONING_PREFIX)


def _random_text(kind: KeyKind) -> str:
    return _random_text_after(_PREFIXES[kind])


def _random_text_after(prefix: str) -> str:
    random = "".join(secrets.choice(api_keys.BASE62) for _ in range(api_keys.RANDOM_CHARACTERS))
    return api_keys.with_checksum(prefix + random)
