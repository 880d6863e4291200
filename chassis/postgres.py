"""Postgres through psycopg 3: pools, and transactions bound to a tenant by row-level security."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import Any, Self

import psycopg
from opentelemetry.trace import SpanKind
from psycopg import AsyncConnection, AsyncCursor
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Composable, Identifier
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from chassis import logs, metrics, tracing
from chassis.errors import Unavailable
from chassis.query_plans import QueryPlans
from chassis.timely_turns import TimelyTurns

Connection = AsyncConnection[DictRow]

#: Statements slower than this are logged, with how they were carried out and without their parameters.
_SLOW_SECONDS = 0.1
#: So much of a statement is shown.
_MOST_STATEMENT = 300

#: So much longer than the server gives a statement its answer is waited for: the server may be silent, or out of reach.
_ON_THE_WAY_SECONDS = 2.0
#: As libpq has them: within ten seconds it finds that the server's machine is gone.
_SIGNS_OF_LIFE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}

#: The statement with which the pool sees whether a connection lives is empty.
_CONNECTION_CHECK = "(check of a connection)"

#: What is shown of a pool, by its state in metrics, as psycopg calls it.
_FIGURES = {"max": "pool_max", "size": "pool_size", "available": "pool_available", "waiting": "requests_waiting"}

#: What a caller is told to wait while the database is away.
_RETRY_AFTER_SECONDS = 1.0

log = logs.get(__name__)


class _MeasuredCursor(AsyncCursor[DictRow]):
    """A cursor that times, traces and (where slow) logs its statements."""

    def __init__(self, connection: Connection, *, plans: QueryPlans, **options: Any) -> None:
        super().__init__(connection, **options)
        self._plans = plans

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        began = time.monotonic()
        succeeded = False
        try:
            done = await self._execute(query, params, **options)
            succeeded = True
            return done
        finally:
            seconds = time.monotonic() - began
            metrics.POSTGRES_QUERIES.observe(seconds, tracing.exemplar())
            if seconds > _SLOW_SECONDS:
                statement = self._statement(query)
                plan = await self._plans.of(self.connection, statement, query, params) if succeeded else {}
                log.warning("slow query", seconds=round(seconds, 3), statement=statement[:_MOST_STATEMENT], **plan)

    async def _execute(self, query: Any, params: Any, **options: Any) -> Self:
        if not tracing.sampled():  # what nobody asked for by a request begins no trace
            return await super().execute(query, params, **options)
        statement = self._statement(query)[:_MOST_STATEMENT]
        attributes = {"db.system.name": "postgresql", "db.query.text": statement}
        with tracing.span("postgres", kind=SpanKind.CLIENT, attributes=attributes):
            return await super().execute(query, params, **options)

    def _statement(self, query: Any) -> str:
        """A statement, as one line, without its parameters."""
        text = query.as_string(self.connection) if isinstance(query, Composable) else str(query)
        return " ".join(text.split()) or _CONNECTION_CHECK


class _BoundedConnection(AsyncConnection[DictRow]):
    """Tells why it could not be made, and waits for no answer for ever."""

    #: After so long without an answer it is closed; None: waits for ever.
    _patience_seconds: float | None = None

    @classmethod
    async def connect(cls, conninfo: str = "", **options: Any) -> Self:
        """`refusals`, a list: what the last attempt failed with, in the driver's words, which hold no password."""
        refusals, patience_seconds = options.pop("refusals"), options.pop("patience_seconds")
        try:
            told = conninfo_to_dict(conninfo)
            connection = await super().connect(**{**_SIGNS_OF_LIFE, **told, **options})
        except psycopg.OperationalError as error:
            refusals[:] = [" ".join(str(error).split())]
            raise
        refusals.clear()
        connection._patience_seconds = patience_seconds
        return connection

    @contextmanager
    def allowing(self, statement_seconds: float | None) -> Iterator[None]:
        """Inside the block the server takes so long for a statement; None: as long as it usually does."""
        usual = self._patience_seconds
        if statement_seconds is not None:
            self._patience_seconds = statement_seconds + _ON_THE_WAY_SECONDS
        try:
            yield
        finally:
            self._patience_seconds = usual

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:  # noqa: ASYNC109
        try:
            return await super().wait(gen, interval, timeout or self._patience_seconds)
        except psycopg.OperationalError:
            # The server, or what is in between, is silent: whoever had to end the transaction in order would wait too.
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


async def _check(connection: _BoundedConnection) -> None:
    """Raises where a connection that was not used for a while does not answer."""
    with connection.allowing(0.0):
        await _Pool.check_connection(connection)


class _Pool(AsyncConnectionPool[_BoundedConnection]):
    """A pool that says why it has no connection."""

    def __init__(self, dsn: str | Callable[[], str], *, connection: dict[str, Any], **options: Any) -> None:
        self._refusals: list[str] = []
        options["kwargs"] = {**connection, "refusals": self._refusals}
        super().__init__(dsn, connection_class=_BoundedConnection, **options)

    async def getconn(self, timeout: float | None = None) -> _BoundedConnection:  # noqa: ASYNC109 - as the pool has it
        try:
            return await super().getconn(timeout)
        except PoolTimeout as error:
            raise PoolTimeout("; ".join([*self._refusals, str(error)])) from error


_IdleInTransaction = psycopg.errors.IdleInTransactionSessionTimeout


class Database:
    """A pool, and transactions on it. Every failure to reach the database is `Unavailable`."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def transaction(
        self, statement_timeout_seconds: float | None = None, /, *, tenant_id: str = "", role: str = "", **settings: str
    ) -> AsyncIterator[Connection]:
        """One transaction, committed where the block ends well.

        `tenant_id` becomes `app.tenant_id`, which the row-level security policies read; without it no tenant's row is
        seen. Further keywords become `app.<name>`, for policies that show less. `role` is entered for this
        transaction alone; a timeout of its own is its statements'. Raises Unavailable where the database is away,
        silent or read-only, before or in the middle; a caller must then assume nothing about the outcome.
        """
        if tenant_id:
            settings["tenant_id"] = tenant_id
        try:
            async with self._connection(None, statement_timeout_seconds) as connection, connection.transaction():
                await _prepare(connection, role, statement_timeout_seconds, settings)
                yield connection
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            reason = "The database's schema is older than this code; its migrations have not run yet."
            raise Unavailable(reason, retry_after_seconds=_RETRY_AFTER_SECONDS) from error
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise Unavailable("The database takes no changes.", retry_after_seconds=_RETRY_AFTER_SECONDS) from error
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, _IdleInTransaction) as error:
            if isinstance(error, psycopg.errors.QueryCanceled | psycopg.errors.LockNotAvailable):
                raise Unavailable("The database was too slow.", retry_after_seconds=_RETRY_AFTER_SECONDS) from error
            if isinstance(error, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure):
                reason = "Somebody else was changing the same at the same time."
                raise Unavailable(reason, retry_after_seconds=_RETRY_AFTER_SECONDS) from error
            raise Unavailable("The database is away.", retry_after_seconds=_RETRY_AFTER_SECONDS) from error

    def in_turns(self, turns: TimelyTurns) -> "Database":
        """The same pool. Each transaction waits for a turn of the person or the tenant that it is for, so that one who
        waits for locks of their own leaves connections to others. One in a role is for neither, and does not wait."""
        return _InTurns(self._pool, turns)

    async def probe(self) -> None:
        """A health check: one round trip."""
        async with self._connection(timeout_seconds=1.5) as connection:
            await connection.execute("SELECT 1")

    @asynccontextmanager
    async def _connection(
        self, timeout_seconds: float | None = None, statement_timeout_seconds: float | None = None
    ) -> AsyncIterator[Connection]:
        before = _cancellations()
        async with self._pool.connection(timeout_seconds) as connection:
            # Before Python 3.12 `asyncio.wait_for`, on which the pool waits, forgets a cancellation that comes together
            # with the connection; a task that works in a loop would never end.
            if _cancellations() > before:
                raise asyncio.CancelledError
            with connection.allowing(statement_timeout_seconds):
                yield connection


class _InTurns(Database):
    """See `Database.in_turns`."""

    def __init__(self, pool: _Pool, turns: TimelyTurns) -> None:
        super().__init__(pool)
        self._turns = turns

    @asynccontextmanager
    async def transaction(
        self, statement_timeout_seconds: float | None = None, /, *, tenant_id: str = "", role: str = "", **settings: str
    ) -> AsyncIterator[Connection]:
        holder = settings.get("user_id") or tenant_id
        turn = self._turns.one(holder) if holder else nullcontext()
        transaction = super().transaction(statement_timeout_seconds, tenant_id=tenant_id, role=role, **settings)
        async with turn, transaction as connection:
            yield connection


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0


async def _prepare(
    connection: Connection, role: str, statement_timeout_seconds: float | None, settings: dict[str, str]
) -> None:
    if role:
        await connection.execute(SQL("SET LOCAL ROLE {}").format(Identifier(role)))
    if statement_timeout_seconds is not None:
        await connection.execute(SQL("SET LOCAL statement_timeout = {}").format(int(statement_timeout_seconds * 1000)))
    for name, value in settings.items():
        await connection.execute("SELECT set_config(%s, %s, true)", (f"app.{name}", value))


def _measure(pool: _Pool, name: str) -> None:
    for state, figure in _FIGURES.items():
        metrics.POSTGRES_POOL.labels(name, state).set_function(partial(_figure, pool, figure))


def _figure(pool: _Pool, figure: str) -> float:
    return pool.get_stats()[figure]


@asynccontextmanager
async def connected(
    dsn: str | Callable[[], str],
    *,
    pool_name: str = "main",
    most_connections: int = 10,
    statement_timeout_seconds: float = 10.0,
) -> AsyncIterator[Database]:
    """A pool that is closed at the end. It fills by itself, now or when the database comes up.

    `dsn`: a function where it may change; each new connection asks it. `pool_name`: in metrics, where a process has
    several.
    """
    pool = _Pool(
        dsn,
        min_size=1,
        max_size=most_connections,
        timeout=3.0,
        max_idle=300.0,
        reconnect_timeout=10.0,
        check=_check,
        open=False,
        connection={
            "patience_seconds": statement_timeout_seconds + _ON_THE_WAY_SECONDS,
            "row_factory": dict_row,
            "cursor_factory": partial(_MeasuredCursor, plans=QueryPlans()),
            "connect_timeout": 3,
            "options": f"-c statement_timeout={int(statement_timeout_seconds * 1000)} -c lock_timeout=5000"
            # What a frozen process holds is let go so soon that another one can take its place within ten seconds.
            " -c idle_in_transaction_session_timeout=5000",
        },
    )
    _measure(pool, pool_name)
    await pool.open(wait=False)
    try:
        yield Database(pool)
    finally:
        # A broken connection must not keep a service from ending.
        async with asyncio.timeout(10):
            await pool.close(timeout=5)
