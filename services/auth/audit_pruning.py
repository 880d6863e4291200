"""`python -m services.auth prune-audit FOLDER`: takes away what of the audit log is older than it is to be kept.

Of each chain goes what comes up to the newest signed head that is old enough: verified first, and written as an export
into the folder. What is left is tied to it by an anchor, which is signed under the master key: nobody else can shorten
a chain and have it look pruned.
"""

import json
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from chassis import postgres
from chassis.clock import Clock, from_unix_ms
from chassis.postgres import Connection, Database
from chassis.settings import integer, postgres_url, setting
from services.auth.audit_chain import Head, HeadSignature, SealedEntry, signed_at
from services.auth.audit_verification import MOST_HEADS_AT_A_TIME, entries, verified_chain
from services.auth.domain import TenantId
from services.auth.master_key import MasterKey
from services.auth.settings import master_key
from services.auth.storage.audit import PRUNER_ROLE, AnchorStorage, SignedHeadStorage


@dataclass(frozen=True, kw_only=True)
class PruningSettings:
    """What the command reads from its environment."""

    #: The schema's owner, who alone may enter the role that prunes.
    dsn: str = setting("PULSEGATE_POSTGRES_OWNER_DSN", parse=postgres_url, secret=True)
    master_key: bytes = setting("PULSEGATE_AUTH_MASTER_KEY", parse=master_key, secret=True)
    #: For how long entries are kept; None: for good.
    retention_days: int | None = setting("PULSEGATE_AUDIT_RETENTION_DAYS", parse=integer(30, 36_500), default=None)


async def prune(settings: PruningSettings, folder: Path, clock: Clock) -> list[str]:
    """A line for each chain of which something went. Raises SystemExit with them where a chain has faults, of which
    nothing goes, or where there is no such folder."""
    if settings.retention_days is None:
        return ["PULSEGATE_AUDIT_RETENTION_DAYS is not set: everything is kept."]
    _require_folder(folder)
    now = from_unix_ms(clock.now_ms())
    pruner = _Pruner(HeadSignature.of(MasterKey(settings.master_key)), folder, now)
    before, lines = now - timedelta(days=settings.retention_days), list[str]()
    async with postgres.connected(settings.dsn) as database:
        for tenant_id in await _tenants(database):
            async with database.transaction(role=PRUNER_ROLE) as connection:
                lines += await pruner.prune(connection, tenant_id, before)
    if pruner.faulty:
        raise SystemExit("\n".join([*lines, "The audit log is NOT what was written to it."]))
    return lines


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise SystemExit(f"{folder} is no folder.")


async def _tenants(database: Database) -> list[TenantId]:
    async with database.transaction(role=PRUNER_ROLE) as connection:
        return list(await SignedHeadStorage().tenants(connection))


class _Pruner:
    def __init__(self, signature: HeadSignature, folder: Path, now: datetime) -> None:
        self._signature = signature
        self._folder = folder
        self._now = now
        self.faulty = False

    async def prune(self, connection: Connection, tenant_id: TenantId, before: datetime) -> list[str]:
        """What it did, or found wrong."""
        chain = await verified_chain(connection, self._signature, tenant_id, {})
        if chain.faults:
            self.faulty = True
            return [f"{tenant_id}: FAULT {fault}" for fault in chain.faults]
        text = await self._newest_signed(connection, tenant_id, chain.pruned, before)
        anchor = self._signature.read(text) if text else None
        if anchor is None:
            return []
        path = self._folder / f"{tenant_id}-{chain.pruned + 1}-{anchor.sequence}.ndjson"
        await self._keep(connection, path, anchor, str(text))
        await AnchorStorage().prune(connection, anchor, self._signature.sign_anchor(anchor, self._now))
        return [f"{tenant_id}: {anchor.sequence - chain.pruned} entries are in {path} alone"]

    async def _newest_signed(
        self, connection: Connection, tenant_id: TenantId, pruned: int, before: datetime
    ) -> str | None:
        """The furthest head that was signed before the moment, of those after what was pruned."""
        newest, storage, after = None, SignedHeadStorage(), pruned
        while page := await storage.page(connection, tenant_id, after, MOST_HEADS_AT_A_TIME):
            for text in page.values():
                if signed_at(text) >= before:
                    return newest
                newest = text
            after = max(page)
        return newest

    async def _keep(self, connection: Connection, path: Path, anchor: Head, signed_head: str) -> None:
        """On disk when it returns: an export of what comes up to the anchor, as `verify-audit` takes it."""
        unfinished = path.with_suffix(".part")
        with unfinished.open("w", encoding="utf-8") as file:
            async for entry in entries(connection, anchor.tenant_id, until=anchor.sequence):
                file.write(_line(entry))
            file.write(json.dumps({"signedHead": signed_head}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        _settle(path.parent)


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
