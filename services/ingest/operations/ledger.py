"""Questions about the delivery ledger."""

import uuid

from chassis.errors import Unavailable
from chassis.postgres import Database
from chassis.principals import Principal
from services.ingest import ledger_store
from services.ingest.ledger import HOUR_MS
from services.ingest.ledger_store import LastRejection, LedgerLine


class LedgerReader:
    """Answers what became of metrics, from the state. Where the receiver was given no database, it cannot."""

    def __init__(self, database: Database | None) -> None:
        self._database = database

    async def lines(
        self, principal: Principal, *, from_ms: int, to_ms: int, metric: str
    ) -> tuple[list[LedgerLine], dict[str, int]]:
        """The project's lines, and up to when sinks were delivered, Unix milliseconds. Raises Unavailable."""
        principal.require("usage:read")
        # A line belongs to the hour in which it began.
        first_ms = from_ms // HOUR_MS * HOUR_MS
        async with self._known().transaction(tenant_id=principal.tenant_id) as connection:
            lines = await ledger_store.lines(
                connection, uuid.UUID(principal.project_id).bytes, from_ms=first_ms, to_ms=to_ms, metric=metric
            )
            return lines, await ledger_store.delivered_until(connection)

    async def last_rejections(self, principal: Principal) -> list[LastRejection]:
        """The last one of each metric and code. Raises Unavailable."""
        principal.require("usage:read")
        async with self._known().transaction(tenant_id=principal.tenant_id) as connection:
            return await ledger_store.last_rejections(connection, uuid.UUID(principal.project_id).bytes)

    def _known(self) -> Database:
        if self._database is None:
            raise Unavailable("This receiver was not told where the ledger is: PULSEGATE_POSTGRES_DSN is not set.")
        return self._database
