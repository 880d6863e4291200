"""Questions about the delivery ledger."""

import base64
import uuid
from dataclasses import dataclass

from chassis.errors import Invalid, Unavailable
from chassis.postgres import Database
from chassis.principals import Principal
from services.ingest.ledger import HOUR_MS
from services.ingest.storage import lane_groups, ledger
from services.ingest.storage.ledger import MOST_LINES, LastRejection, LedgerLine, Place


@dataclass(frozen=True, kw_only=True)
class LedgerPage:
    """Some lines of a project, the newest first."""

    lines: list[LedgerLine]
    #: Empty: there are no more.
    next_page_token: str
    #: Up to when each sink was delivered, Unix milliseconds.
    delivered_until_ms: dict[str, int]


class LedgerReader:
    """Answers what became of metrics, from the state. Where the receiver was given no database, it cannot."""

    def __init__(self, database: Database | None) -> None:
        self._database = database

    async def lines(
        self, principal: Principal, *, from_ms: int, to_ms: int, metric: str, page_token: str
    ) -> LedgerPage:
        """The project's lines. Raises Invalid where the token is none that was answered, Unavailable."""
        principal.require("usage:read")
        after = _place(page_token) if page_token else None
        # A line belongs to the hour in which it began.
        first_ms = from_ms // HOUR_MS * HOUR_MS
        async with self._known().transaction(tenant_id=principal.tenant_id) as connection:
            lines = await ledger.lines(
                connection,
                uuid.UUID(principal.project_id).bytes,
                from_ms=first_ms,
                to_ms=to_ms,
                metric=metric,
                after=after,
            )
            delivered = await lane_groups.delivered_until(connection)
        told = lines[:MOST_LINES]
        token = _token(told[-1]) if len(lines) > len(told) else ""
        return LedgerPage(lines=told, next_page_token=token, delivered_until_ms=delivered)

    async def last_rejections(self, principal: Principal) -> list[LastRejection]:
        """The last one of each metric and code, and what was folded, the newest first. Raises Unavailable."""
        principal.require("usage:read")
        async with self._known().transaction(tenant_id=principal.tenant_id) as connection:
            project_id = uuid.UUID(principal.project_id).bytes
            rejected = await ledger.last_rejections(connection, project_id)
            folded = await ledger.folded(connection, project_id)
        return sorted([*rejected, *folded], key=lambda each: each.last_ms, reverse=True)[:MOST_LINES]

    def _known(self) -> Database:
        if self._database is None:
            raise Unavailable("This receiver was not told where the ledger is: PULSEGATE_POSTGRES_DSN is not set.")
        return self._database


def _token(last: LedgerLine) -> str:
    return base64.urlsafe_b64encode(f"{last.hour_ms}/{last.metric}".encode()).decode().rstrip("=")


def _place(token: str) -> Place:
    try:
        hour_ms, _, metric = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().partition("/")
        place = Place(int(hour_ms), metric)
    except ValueError:
        place = None
    if place is None or not 0 <= place.hour_ms < 1 << 63 or "\x00" in place.metric:
        raise Invalid.fields({"pageToken": "is not a token that a list has answered"})
    return place
