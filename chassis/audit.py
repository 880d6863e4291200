"""What the audit log is told of a change, and the one form in which it is kept, hashed and exported.

Every change of a tenant's things writes an entry in its own transaction; auth seals the entries into one chain a tenant
(`services/auth/audit_chain.py`). An entry names ids, never secrets, and no e-mail address.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chassis import context
from chassis.clock import rfc3339
from chassis.ids import uuid7_text


@dataclass(frozen=True, kw_only=True)
class Party:
    """Who acted, or what was acted upon."""

    #: Such as "user", "secret" (a key that acted), "key", "project", "metric".
    kind: str
    id: str
    #: What people call it; "" where that is nobody's business or nothing.
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One change, or one attempt to sign in."""

    tenant_id: str
    at: datetime
    #: The service that made the change.
    service: str
    #: The kind of thing and what happened to it: "key.created".
    action: str
    actor: Party
    target: Party
    #: "" where it is not about one project.
    project_id: str = ""
    #: Where the actor's request came from; "" where that is not known.
    address: str = ""
    #: Further members: texts, whole numbers below 2**53, booleans, and lists and objects of these.
    details: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=uuid7_text)
    correlation_id: str = field(default_factory=context.CORRELATION_ID.get)


def document(entry: Entry) -> str:
    """The entry as canonical JSON."""
    members = {
        "id": entry.id,
        "tenantId": entry.tenant_id,
        "projectId": entry.project_id,
        "at": rfc3339(entry.at),
        "service": entry.service,
        "action": entry.action,
        "actor": _party(entry.actor),
        "target": _party(entry.target),
        "address": entry.address,
        "details": dict(entry.details),
        "correlationId": entry.correlation_id,
    }
    return canonical(members)


def canonical(members: Mapping[str, Any]) -> str:
    """RFC 8785, for what `Entry.details` allows: one text for one meaning."""
    return json.dumps(members, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _party(party: Party) -> dict[str, str]:
    return {"kind": party.kind, "id": party.id, "name": party.name}
