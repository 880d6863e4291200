"""`python -m services.auth verify-audit [export …]`: whether the audit log is what was written to it."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis import postgres
from chassis.audit import canonical
from chassis.postgres import Connection, Database
from chassis.settings import postgres_url, setting
from services.auth.audit_chain import ChainCheck, Head, HeadSignature, SealedEntry, hash_of
from services.auth.domain import TenantId
from services.auth.master_key import MasterKey
from services.auth.settings import master_key
from services.auth.storage.audit import AUDITOR_ROLE, AnchorStorage, AuditStorage, SignedHeadStorage

_MOST_AT_A_TIME = 1000

#: Hashes that are certain, by tenant and sequence.
Known = dict[TenantId, dict[int, bytes]]


@dataclass(frozen=True, kw_only=True)
class VerificationSettings:
    """What the command reads from its environment: the service's own settings."""

    dsn: str = setting("PULSEGATE_POSTGRES_DSN", parse=postgres_url, secret=True)
    master_key: bytes = setting("PULSEGATE_AUTH_MASTER_KEY", parse=master_key, secret=True)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """One chain."""

    tenant_id: TenantId
    entries: int
    #: The sequence of the last entry that was pruned.
    pruned: int
    signed_heads: int
    faults: list[str]

    def __str__(self) -> str:
        pruned = f" after {self.pruned} that were pruned" if self.pruned else ""
        return f"{self.tenant_id}: {self.entries} entries{pruned}, {self.signed_heads} signed heads"


async def verify(settings: VerificationSettings, exports: Iterable[Path]) -> list[str]:
    """A line for each chain and each fault. Raises SystemExit with them where there is a fault or no such file."""
    signature = HeadSignature.of(MasterKey(settings.master_key))
    known = _known_from(exports, signature)
    lines: list[str] = []
    faulty = False
    async with postgres.connected(settings.dsn) as database:
        for chain in await verified_chains(database, signature, known):
            faulty |= bool(chain.faults)
            lines.append(str(chain))
            lines += [f"{chain.tenant_id}: FAULT {fault}" for fault in chain.faults]
    if faulty:
        raise SystemExit("\n".join([*lines, "The audit log is NOT what was written to it."]))
    return [*lines, "The audit log is what was written to it."]


async def verified_chains(database: Database, signature: HeadSignature, known: Known) -> list[Verified]:
    """Every chain there is, and those that are only known from elsewhere."""
    async with database.transaction(role=AUDITOR_ROLE) as connection:
        tenants = await SignedHeadStorage().tenants(connection)
    return [
        await _verified(database, signature, tenant_id, known.get(tenant_id, {}))
        for tenant_id in sorted({*tenants, *known})
    ]


async def _verified(
    database: Database, signature: HeadSignature, tenant_id: TenantId, known: Mapping[int, bytes]
) -> Verified:
    async with database.transaction(role=AUDITOR_ROLE) as connection:
        return await verified_chain(connection, signature, tenant_id, known)


async def verified_chain(
    connection: Connection, signature: HeadSignature, tenant_id: TenantId, known: Mapping[int, bytes]
) -> Verified:
    """One chain as it is at one moment, for the whole transaction, which must not have read anything before."""
    await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    signed = await SignedHeadStorage().of_tenant(connection, tenant_id)
    certain, faults = _certain(signed, signature, tenant_id, known)
    anchor = await AnchorStorage().find(connection, tenant_id)
    after = signature.read_anchor(anchor) if anchor is not None else None
    if anchor is not None and (after is None or after.tenant_id != tenant_id):
        after = None
        faults.append("the anchor of what was pruned is not genuine")
    if after is not None and certain.setdefault(after.sequence, after.hash) != after.hash:
        faults.append(
            f"entry {after.sequence}, the last one that was pruned, is not the one that was signed or exported"
        )
    check = ChainCheck(tenant_id, certain, after)
    async for entry in entries(connection, tenant_id):
        faults += check.faults_of(entry)
    faults += check.faults_of_end(await AuditStorage().head(connection, tenant_id))
    pruned = after.sequence if after else 0
    return Verified(
        tenant_id=tenant_id, entries=check.entries - pruned, pruned=pruned, signed_heads=len(signed), faults=faults
    )


async def entries(connection: Connection, tenant_id: TenantId) -> AsyncIterator[SealedEntry]:
    """Those of a chain that are there, in order."""
    after, storage = -1, AuditStorage()
    while page := await storage.page(connection, tenant_id, after, _MOST_AT_A_TIME):
        for entry in page:
            yield entry
        after = page[-1].sequence


def _certain(
    signed: Iterable[str], signature: HeadSignature, tenant_id: TenantId, known: Mapping[int, bytes]
) -> tuple[dict[int, bytes], list[str]]:
    """What signed heads and exports say of a chain, and what is wrong with these heads."""
    certain, faults = dict(known), []
    for text in signed:
        head = signature.read(text)
        if head is None or head.tenant_id != tenant_id:
            faults.append("a signed head is not genuine")
        elif certain.setdefault(head.sequence, head.hash) != head.hash:
            faults.append(f"the signed head of entry {head.sequence} contradicts an export")
    return certain, faults


def _known_from(exports: Iterable[Path], signature: HeadSignature) -> Known:
    """What exports (JSON lines) say. Raises SystemExit where one cannot be read, was edited, is not signed by us, or
    contradicts itself or another."""
    known: Known = {}
    for path in exports:
        try:
            heads = _exported(path.read_text(encoding="utf-8").splitlines(), signature)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SystemExit(f"{path} is no export of the audit log: {error}") from error
        for head in heads:
            if known.setdefault(head.tenant_id, {}).setdefault(head.sequence, head.hash) != head.hash:
                raise SystemExit(f"{path} contradicts what the exports say of entry {head.sequence} before.")
    return known


def _exported(lines: Sequence[str], signature: HeadSignature) -> Sequence[Head]:
    """The chain as it was after each entry, and the signed head, the last line. Raises ValueError, KeyError."""
    *entries, last = map(json.loads, lines)
    head = signature.read(last["signedHead"])
    if head is None:
        raise ValueError("its signature is not genuine")
    return [*(_after(entry, head.tenant_id) for entry in entries), head]


def _after(line: Mapping[str, Any], tenant_id: TenantId) -> Head:
    entry, sequence, entry_hash = line["entry"], int(line["sequence"]), bytes.fromhex(line["hash"])
    if hash_of(tenant_id, sequence, bytes.fromhex(line["previousHash"]), canonical(entry)) != entry_hash:
        raise ValueError(f"entry {sequence} was edited: its hash does not fit")
    return Head(tenant_id=tenant_id, sequence=sequence, hash=entry_hash)
