"""`python -m services.auth prune-audit FOLDER`: takes away what of the audit log is older than it is to be kept.

Of each chain goes what comes up to the newest signed head that is old enough: verified first, and step by step, each
written as an export into the folder. What is left is tied to it by an anchor, which is signed under the master key:
nobody else can shorten a chain and have it look pruned.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from chassis import postgres
from chassis.clock import Clock, from_unix_ms
from chassis.postgres import Connection, Database
from chassis.settings import integer, postgres_url, setting
from services.auth.audit_chain import ChainCheck, Head, HeadSignature, SealedEntry, signed_at
from services.auth.audit_verification import MOST_HEADS_AT_A_TIME, entries, verified_chain
from services.auth.domain import TenantId
from services.auth.master_key import MasterKey
from services.auth.settings import master_key
from services.auth.storage.audit import PRUNER_ROLE, AnchorStorage, SignedHeadStorage

#: How many entries go in one transaction, where so many come up to a signed head: they are written and deleted within
#: the database's time limits.
_ENTRIES_OF_A_STEP = 20_000


@dataclass(frozen=True, kw_only=True)
class PruningSettings:
    """What the command reads from its environment."""

    #: The schema's owner, who alone may enter the role that prunes.
    dsn: str = setting("PULSEGATE_POSTGRES_OWNER_DSN", parse=postgres_url, secret=True)
    master_key: bytes = setting("PULSEGATE_AUTH_MASTER_KEY", parse=master_key, secret=True)
    #: For how long entries are kept; None: for good.
    retention_days: int | None = setting("PULSEGATE_AUDIT_RETENTION_DAYS", parse=integer(30, 36_500), default=None)


async def prune(settings: PruningSettings, folder: Path, clock: Clock, say: Callable[[str], None]) -> None:
    """Says what went, or is wrong, as soon as it is certain.

    Raises SystemExit where a chain has faults, of which nothing more goes, or where there is no such folder, and
    Unavailable or OSError where it cannot go on: what was said until then is done.
    """
    if settings.retention_days is None:
        say("PULSEGATE_AUDIT_RETENTION_DAYS is not set: everything is kept.")
        return
    _require_folder(folder)
    now, faulty = from_unix_ms(clock.now_ms()), False
    before = now - timedelta(days=settings.retention_days)
    async with postgres.connected(settings.dsn) as database:
        pruner = _Pruner(database, HeadSignature.of(MasterKey(settings.master_key)), folder, now)
        for tenant_id in await pruner.tenants():
            try:
                await pruner.prune(tenant_id, before, say)
            except _Faulty as error:
                faulty = True
                for fault in error.faults:
                    say(f"{tenant_id}: FAULT {fault}")
    if faulty:
        raise SystemExit("The audit log is NOT what was written to it.")


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise SystemExit(f"{folder} is no folder.")


class _Faulty(Exception):
    """A chain is not what was written to it."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(*faults)
        self.faults = faults


class _Pruner:
    def __init__(self, database: Database, signature: HeadSignature, folder: Path, now: datetime) -> None:
        self._database = database
        self._signature = signature
        self._folder = folder
        self._now = now

    async def tenants(self) -> Sequence[TenantId]:
        async with self._database.transaction(role=PRUNER_ROLE) as connection:
            return await SignedHeadStorage().tenants(connection)

    async def prune(self, tenant_id: TenantId, before: datetime, say: Callable[[str], None]) -> None:
        """Raises _Faulty."""
        await self._verify(tenant_id)
        while line := await self._step(tenant_id, before):
            say(line)

    async def _verify(self, tenant_id: TenantId) -> None:
        """The whole chain. Raises _Faulty."""
        async with self._database.transaction(role=PRUNER_ROLE) as connection:
            chain = await verified_chain(connection, self._signature, tenant_id, {})
        _require_none(chain.faults)

    async def _step(self, tenant_id: TenantId, before: datetime) -> str:
        """What it did; "" where nothing is left that is old enough. Raises _Faulty."""
        async with self._database.transaction(role=PRUNER_ROLE) as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            signed_anchor = await AnchorStorage().find(connection, tenant_id)
            after = self._signature.read_anchor(signed_anchor) if signed_anchor else None
            pruned = after.sequence if after else 0
            signed_head = await self._next_signed(connection, tenant_id, pruned, before)
            anchor = self._signature.read(signed_head) if signed_head else None
            if anchor is None:
                return ""
            path = self._folder / f"{tenant_id}-{pruned + 1}-{anchor.sequence}.ndjson"
            await self._keep(connection, path, ChainCheck(tenant_id, {}, after), anchor, str(signed_head))
            await AnchorStorage().prune(connection, anchor, self._signature.sign_anchor(anchor, self._now))
        return f"{tenant_id}: {anchor.sequence - pruned} entries are in {path} alone"

    async def _next_signed(
        self, connection: Connection, tenant_id: TenantId, pruned: int, before: datetime
    ) -> str | None:
        """The furthest head that was signed before the moment and that a step reaches, or else the next one."""
        found: str | None = None
        after, storage = pruned, SignedHeadStorage()
        while page := await storage.page(connection, tenant_id, after, MOST_HEADS_AT_A_TIME):
            for sequence, text in page.items():
                if signed_at(text) >= before or (found and sequence > pruned + _ENTRIES_OF_A_STEP):
                    return found
                found = text
            after = max(page)
        return found

    async def _keep(
        self, connection: Connection, path: Path, check: ChainCheck, anchor: Head, signed_head: str
    ) -> None:
        """On disk when it returns: an export of what comes up to the anchor, as `verify-audit` takes it.

        Raises _Faulty where that is no longer what was verified.
        """
        unfinished = path.with_suffix(".part")
        with unfinished.open("w", encoding="utf-8") as file:
            async for entry in entries(connection, anchor.tenant_id, until=anchor.sequence):
                _require_none(check.faults_of(entry))
                file.write(_line(entry))
            _require_none(check.faults_of_end(anchor))
            file.write(json.dumps({"signedHead": signed_head, "signedBy": self._signature.public_jwk}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        _settle(path.parent)


def _require_none(faults: Iterable[str]) -> None:
    if found := list(faults):
        raise _Faulty(found)


def _settle(folder: Path) -> None:
    """Puts on disk which files there are."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(entry: SealedEntry) -> str:
    members = {"sequence": entry.sequence, "previousHash": entry.previous_hash.hex(), "hash": entry.hash.hex()}
    return json.dumps({**members, "entry": json.loads(entry.document)}) + "\n"
