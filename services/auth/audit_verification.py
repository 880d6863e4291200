"""`python -m services.auth verify-audit [export …]`: whether the audit log is what was written to it."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis import postgres
from chassis.audit import canonical
from chassis.loop_turns import LoopTurns
from chassis.postgres import Connection, Database
from chassis.settings import postgres_url, setting
from services.auth.audit_chain import GENESIS, ChainCheck, Head, HeadSignature, SealedEntry, hash_of
from services.auth.domain import TenantId
from services.auth.master_key import MasterKey
from services.auth.settings import master_key
from services.auth.storage.audit import AUDITOR_ROLE, AnchorStorage, AuditStorage, SignedHeadStorage

_MOST_AT_A_TIME = 1000

#: Signed heads that are in memory at once.
MOST_HEADS_AT_A_TIME = 500

#: No sequence number is greater.
_LAST = 2**63 - 1

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
    verification = _Verification(connection, signature, tenant_id, known)
    return await verification.result()


async def entries(
    connection: Connection, tenant_id: TenantId, after: int = -1, until: int = _LAST
) -> AsyncIterator[SealedEntry]:
    """Those of a chain that are there, after one sequence number up to another, in order."""
    storage = AuditStorage()
    while page := await storage.page(connection, tenant_id, after, min(_MOST_AT_A_TIME, until - after)):
        for entry in page:
            if entry.sequence > until:
                return
            yield entry
        after = page[-1].sequence


class _Verification:
    """Of one chain, in one transaction: by turns a page of signed heads, and the entries up to the last of them."""

    def __init__(
        self, connection: Connection, signature: HeadSignature, tenant_id: TenantId, known: Mapping[int, bytes]
    ) -> None:
        self._connection = connection
        self._signature = signature
        self._tenant_id = tenant_id
        self._known = known
        self._turns = LoopTurns()
        self._faults: list[str] = []

    async def result(self) -> Verified:
        after = await self._beginning()
        check = ChainCheck(self._tenant_id, self._known, after)
        read, signed_heads = -1, 0
        while read < _LAST:
            page = await self._heads_after(read, MOST_HEADS_AT_A_TIME)
            until = max(page, default=_LAST)
            self._faults += check.faults_of_heads(await self._genuine(page))
            async for entry in entries(self._connection, self._tenant_id, read, until):
                self._faults += check.faults_of(entry)
                await self._turns.pause()
            read, signed_heads = until, signed_heads + len(page)
        self._faults += check.faults_of_end(await AuditStorage().head(self._connection, self._tenant_id))
        pruned = after.sequence if after else 0
        return Verified(
            tenant_id=self._tenant_id,
            entries=check.entries - pruned,
            pruned=pruned,
            signed_heads=signed_heads,
            faults=self._faults,
        )

    async def _beginning(self) -> Head | None:
        """The anchor of what was pruned, if it is genuine."""
        text = await AnchorStorage().find(self._connection, self._tenant_id)
        if text is None:
            return None
        anchor = self._signature.read_anchor(text)
        if anchor is None or anchor.tenant_id != self._tenant_id:
            self._faults.append("the anchor of what was pruned is not genuine")
            return None
        signed = self._read(anchor.sequence, await self._heads_after(anchor.sequence - 1, 1))
        if self._known.get(anchor.sequence, signed.hash if signed else anchor.hash) != anchor.hash:
            self._faults.append(
                f"entry {anchor.sequence}, the last one that was pruned, is not the one that was signed or exported"
            )
        return anchor

    async def _heads_after(self, sequence: int, most: int) -> Mapping[int, str]:
        return await SignedHeadStorage().page(self._connection, self._tenant_id, sequence, most)

    async def _genuine(self, page: Mapping[int, str]) -> Sequence[Head]:
        """The heads of a page that were signed by us."""
        heads = []
        for sequence in page:
            head = self._read(sequence, page)
            if head is None:
                self._faults.append("a signed head is not genuine")
            else:
                heads.append(head)
            await self._turns.pause()
        return heads

    def _read(self, sequence: int, page: Mapping[int, str]) -> Head | None:
        """The signed head of an entry; None where there is none, or it was not signed by us for that place."""
        head = self._signature.read(page[sequence]) if sequence in page else None
        place = (self._tenant_id, sequence)
        return head if head is not None and (head.tenant_id, head.sequence) == place else None


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
            if known.setdefault(head.tenant_id, {0: GENESIS}).setdefault(head.sequence, head.hash) != head.hash:
                raise SystemExit(f"{path} contradicts what the exports say of entry {head.sequence} before.")
    return known


def _exported(lines: Sequence[str], signature: HeadSignature) -> Sequence[Head]:
    """The chain before and after each entry, and the signed head, the last line. Raises ValueError, KeyError."""
    *entries, last = map(json.loads, lines)
    head = signature.read(last["signedHead"])
    if head is None:
        raise ValueError("its signature is not genuine")
    return [*(each for entry in entries for each in _around(entry, head.tenant_id)), head]


def _around(line: Mapping[str, Any], tenant_id: TenantId) -> tuple[Head, Head]:
    """The chain as it was before an entry and after it."""
    sequence, previous, entry_hash = int(line["sequence"]), *map(bytes.fromhex, (line["previousHash"], line["hash"]))
    if hash_of(tenant_id, sequence, previous, canonical(line["entry"])) != entry_hash:
        raise ValueError(f"entry {sequence} was edited: its hash does not fit")
    before = Head(tenant_id=tenant_id, sequence=sequence - 1, hash=previous)
    return before, Head(tenant_id=tenant_id, sequence=sequence, hash=entry_hash)
