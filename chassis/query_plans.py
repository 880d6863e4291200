"""How Postgres carries out a statement that was slow, as a fingerprint: one that changes tells why it became slow."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.pq import TransactionStatus
from psycopg.rows import scalar_row
from psycopg.sql import SQL, Composable

from chassis import logs

log = logs.get(__name__)

#: Statements that have a plan.
_PLANNED = ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH")
#: What makes plans different, of what EXPLAIN tells of a node. Conditions and estimates do not: they hold data.
_SHAPE = ("Node Type", "Strategy", "Join Type", "Relation Name", "Index Name", "Parent Relationship")

#: A statement's plan is asked for at most once in so many seconds.
_KEPT_SECONDS = 60.0
_MOST_KEPT = 1000
_MOST_OUTLINE = 300


class QueryPlans:
    """Of the statements of one pool."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        #: When it was asked for and what was told, by statement.
        self._kept: dict[str, tuple[float, Mapping[str, str]]] = {}

    async def of(self, connection: AsyncConnection[Any], statement: str, query: Any, params: Any) -> Mapping[str, str]:
        """`plan`, a fingerprint, and `plan_outline` of a statement that has just succeeded in the connection's
        transaction; nothing where it has none. Carries nothing out.

        It is asked within a savepoint: nobody else may use the connection meanwhile.
        """
        now = self._monotonic()
        if (kept := self._kept.get(statement)) is not None and now - kept[0] < _KEPT_SECONDS:
            return kept[1]
        in_transaction = connection.info.transaction_status is TransactionStatus.INTRANS
        # EXPLAIN would carry out what stands behind a semicolon.
        if not in_transaction or not statement.upper().startswith(_PLANNED) or ";" in statement:
            return {}
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        told = await _told(connection, query, params)
        self._kept[statement] = (now, told)
        return told


async def _told(connection: AsyncConnection[Any], query: Any, params: Any) -> Mapping[str, str]:
    explain = SQL("EXPLAIN (FORMAT JSON, COSTS OFF) ") + (query if isinstance(query, Composable) else SQL(query))
    try:
        async with connection.transaction(), AsyncCursor(connection, row_factory=scalar_row) as cursor:
            await cursor.execute(explain, params, prepare=False)
            answer: Any = await cursor.fetchone()
    except psycopg.Error as error:
        log.warning("a slow query has no plan", reason=type(error).__name__)
        return {}
    plan = answer[0]["Plan"]
    shape = json.dumps(_shape(plan)).encode()
    return {"plan": hashlib.blake2s(shape, digest_size=6).hexdigest(), "plan_outline": _outline(plan)[:_MOST_OUTLINE]}


def _shape(node: Mapping[str, Any]) -> list[Any]:
    return [*(node.get(name) for name in _SHAPE), *map(_shape, node.get("Plans", ()))]


def _outline(node: Mapping[str, Any]) -> str:
    """Such as `Limit(Index Scan things_pkey)`."""
    name = node.get("Index Name") or node.get("Relation Name")
    inner = ", ".join(map(_outline, node.get("Plans", ())))
    return f"{node['Node Type']}{f' {name}' if name else ''}{f'({inner})' if inner else ''}"
