"""A tenant's audit log."""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Annotated, Any

import jwt
import msgspec
from aiohttp import web

from contracts.pulsegate.auth.v1 import audit_pb2 as pb
from services.gateway.clients.accounts import Audit
from services.gateway.http_api.bodies import Asking, Page, answer, path_id
from services.gateway.http_api.shapes import Id, Moment, Told
from services.gateway.limits import Limits
from services.gateway.routes import HELD, Audience, Header, Media, Operation, Route
from services.gateway.shares import HeldBytes

_LINES = "application/x-ndjson"
_FOR_LINES = f"`{_LINES}` asks for an export: a line an entry, then one with the signed head and its key."
_DESCRIPTION = (
    "From the oldest. Admins read their tenant's; a key with `audit:read` what is about its own project."
    " An export holds 5 000 entries or 8 MiB at most, and counts as an expensive operation; the next one begins after"
    " its last."
)

_MOST_EXPORTED = 5_000
_MOST_EXPORTED_BYTES = 8 << 20
_EXPORTED_AT_A_TIME = 500


class AuditRange(Page):
    #: The sequence of the last entry that the client has; not looked at where there is a page token.
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0


class AuditParty(Told):
    kind: str
    id: str
    name: str


class AuditEntry(Told):
    """In this order and without blanks, this is what was hashed."""

    action: str
    actor: AuditParty
    address: str
    at: Moment
    correlation_id: str
    details: dict[str, Any]
    id: Id
    project_id: str
    service: str
    target: AuditParty
    tenant_id: Id


class SealedAuditEntry(Told):
    #: 1, 2, 3, … in the tenant's chain.
    sequence: int
    #: SHA-256, as hex.
    previous_hash: str
    hash: str
    entry: AuditEntry


class AuditEntries(Told):
    items: list[SealedAuditEntry]
    next_page_token: str
    #: A JWS of where the chain ends, whatever is shown of it.
    signed_head: str
    #: The JWK that it is signed with, which stays the same.
    signed_by: dict[str, str]


class AuditRoutes:
    """`/api/v1/tenants/{tenantId}/audit`"""

    title = "Audit log"

    def __init__(self, audit: Audit, limits: Limits, answers: HeldBytes) -> None:
        self._audit = audit
        self._limits = limits
        self._answers = answers

    def routes(self) -> Sequence[Route]:
        return [
            Route(
                "GET",
                "/api/v1/tenants/{tenantId}/audit",
                Asking(AuditRange, self.read),
                Audience.READ,
                Operation(
                    "Read the audit log",
                    {200: Media(("application/json",), AuditEntries, others=(_LINES,))},
                    _DESCRIPTION,
                    headers=(Header("Accept", _FOR_LINES),),
                ),
            )
        ]

    async def read(self, request: web.Request, wanted: AuditRange) -> web.StreamResponse:
        if _LINES not in request.headers.get("Accept", ""):
            return await self._page(request, wanted)

        async def export(request: web.Request) -> web.StreamResponse:
            return await self._export(request, wanted)

        return await self._limits.expensive(request, export)

    async def _page(self, request: web.Request, wanted: AuditRange) -> web.Response:
        found = await self._audit.entries(
            path_id(request, "tenantId"),
            after=wanted.after,
            page_size=wanted.page_size,
            page_token=wanted.page_token,
        )
        body = {
            "items": [_members(entry) for entry in found.entries],
            "nextPageToken": found.next_page_token,
            **_end(found),
        }
        return answer(body, headers={"ETag": _etag(found)})

    async def _export(self, request: web.Request, wanted: AuditRange) -> web.Response:
        lines, entries, held = bytearray(), 0, self._answers.begin()
        after, token = wanted.after, wanted.page_token
        while True:
            found = await self._audit.entries(
                path_id(request, "tenantId"), after=after, page_size=_EXPORTED_AT_A_TIME, page_token=token
            )
            page = b"".join(_line(_members(entry)) for entry in found.entries)
            held.more(len(page))
            lines += page
            entries += len(found.entries)
            token = found.next_page_token
            if not token or entries >= _MOST_EXPORTED or len(lines) >= _MOST_EXPORTED_BYTES:
                break
        lines += _line(_end(found))
        response = web.Response(body=bytes(lines), content_type=_LINES)
        response[HELD] = True
        return response


def _line(members: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(members) + b"\n"


def _end(page: pb.ListAuditEntriesResponse) -> dict[str, Any]:
    """Where the chain ends, whatever is shown of it."""
    return {"signedHead": page.signed_head, "signedBy": json.loads(page.public_jwk_json)}


def _etag(page: pb.ListAuditEntriesResponse) -> str:
    """The same as long as the page says the same: its head, where it has one, is signed anew for each answer."""
    head = jwt.decode(page.signed_head, options={"verify_signature": False}) if page.signed_head else {}
    head.pop("iat", None)
    said = [page.next_page_token, page.public_jwk_json, head, *(entry.hash.hex() for entry in page.entries)]
    return f'W/"{blake2b(msgspec.json.encode(said), digest_size=16).hexdigest()}"'


def _members(sealed: pb.SealedAuditEntry) -> dict[str, Any]:
    """With the entry's bytes as they were hashed."""
    return {
        "sequence": sealed.sequence,
        "previousHash": sealed.previous_hash.hex(),
        "hash": sealed.hash.hex(),
        "entry": msgspec.Raw(sealed.document.encode()),
    }
