"""The audit log's chains: their order, their signed heads, and that nobody touches them unnoticed."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import REGISTRY

from chassis import postgres
from chassis.audit import canonical
from chassis.clock import SystemClock
from chassis.ids import uuid7
from contracts.pulsegate.auth.v1 import audit_pb2 as pb
from services.auth import audit_watch
from services.auth.__main__ import main
from services.auth.audit_chain import GENESIS, Head, HeadSignature, hash_of
from services.auth.audit_heads import HeadSigner
from services.auth.audit_verification import verified_chains
from services.auth.audit_watch import ChainWatch
from services.auth.domain import MOST_PAGE_BYTES, TenantId
from services.auth.master_key import MasterKey
from services.auth.settings import Settings
from services.auth.storage.audit import AUDITOR_ROLE, AnchorStorage, AuditStorage, SignedHeadStorage
from tests.captured_logs import logged_by
from tests.integration.auth.client import AuthClient, running_auth
from tests.integration.auth.clocks import MovableClock
from tests.suite_database import Database
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

MASTER_KEY = bytes(range(32))

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Verifier:
    """What an operator has: the database, the master key, and exports that somebody kept."""

    database: postgres.Database
    signature: HeadSignature

    async def faults(self, tenant_id: str, known: dict[int, bytes] | None = None) -> list[str]:
        chains = await verified_chains(self.database, self.signature, {TenantId(tenant_id): known or {}})
        [chain] = [chain for chain in chains if chain.tenant_id == tenant_id]
        return chain.faults

    async def sign(self) -> int:
        return await self.signer().sign()

    def signer(self) -> HeadSigner:
        return HeadSigner(
            self.database, AuditStorage(), SignedHeadStorage(), AnchorStorage(), self.signature, SystemClock()
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def verifier(module_database: Database) -> AsyncIterator[Verifier]:
    async with postgres.connected(module_database.dsn("auth")) as database:
        yield Verifier(database, HeadSignature.of(MasterKey(MASTER_KEY)))


@pytest.fixture
def intruder(module_database: Database) -> Iterator[Connection]:
    """Somebody who may do anything in the database."""
    with psycopg.connect(module_database.superuser_dsn, autocommit=True) as connection:
        yield connection


async def test_changes_at_the_same_time_have_an_order_without_gaps(auth: AuthClient, verifier: Verifier) -> None:
    ada = await auth.sign_up()
    await asyncio.gather(*(auth.create_key(ada) for _ in range(12)))

    page = await auth.audit(
        "ListAuditEntries", pb.ListAuditEntriesRequest(tenant_id=ada.tenant_id), await auth.principal(ada)
    )

    assert [entry.sequence for entry in page.entries] == list(range(1, 16))
    before = bytes(32)
    for entry in page.entries:
        assert entry.previous_hash == before
        before = hash_of(TenantId(ada.tenant_id), entry.sequence, before, entry.document)
        assert entry.hash == before
    head = verifier.signature.read(page.signed_head)
    assert head is not None
    assert (head.tenant_id, head.sequence, head.hash) == (ada.tenant_id, 15, before)
    assert await verifier.faults(ada.tenant_id) == []


async def test_a_chain_of_large_entries_is_read_and_verified_a_bounded_part_at_a_time(
    auth: AuthClient, verifier: Verifier
) -> None:
    ada, storage = await auth.sign_up(), AuditStorage()
    tenant_id = TenantId(ada.tenant_id)
    async with verifier.database.transaction(tenant_id=tenant_id) as connection:
        for _ in range(501):
            entry_id = str(uuid7())
            ids = {"id": entry_id, "tenantId": tenant_id, "projectId": ""}
            await storage.append(
                connection, tenant_id, entry_id, "", json.dumps({**ids, "much": "é" * 15_000}, ensure_ascii=False)
            )
        read = await storage.page(connection, tenant_id, 0, 501)

    shown: list[int] = []
    token = ""
    while not shown or token:
        request = pb.ListAuditEntriesRequest(tenant_id=tenant_id, page_size=500, page_token=token)
        page = await auth.audit("ListAuditEntries", request, await auth.principal(ada))
        shown += [entry.sequence for entry in page.entries]
        token = page.next_page_token
        assert page.signed_head

    assert sum(len(entry.document.encode()) for entry in read) < MOST_PAGE_BYTES + 2 * 64_000
    assert shown == list(range(1, 505))
    assert await verifier.faults(tenant_id) == []


def rewritten(connection: Connection, tenant_id: str) -> None:
    """Leaves out the second entry and makes every hash after it fit again, head included."""
    rows = connection.execute(
        "DELETE FROM auth.audit_entries WHERE tenant_id = %s RETURNING sequence, id, document", (tenant_id,)
    ).fetchall()
    kept = [row for row in sorted(rows) if row[0] != 2]
    before = bytes(32)
    for sequence, (_, entry_id, document) in enumerate(kept, start=1):
        entry_hash = hash_of(TenantId(tenant_id), sequence, before, document)
        project = json.loads(document)["projectId"] or None
        connection.execute(
            "INSERT INTO auth.audit_entries VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (tenant_id, sequence, entry_id, project, document, before, entry_hash),
        )
        before = entry_hash
    head = "UPDATE auth.audit_heads SET sequence = %s, hash = %s WHERE tenant_id = %s"
    connection.execute(head, (len(kept), before, tenant_id))


def by(*statements: str) -> Callable[[Connection, str], None]:
    def tamper(connection: Connection, tenant_id: str) -> None:
        for statement in statements:
            connection.execute(statement.encode(), (tenant_id,))

    return tamper


CUT = "DELETE FROM auth.audit_entries WHERE sequence > 2 AND tenant_id = %s"
MOVE_HEAD = (
    "UPDATE auth.audit_heads AS heads SET sequence = entries.sequence, hash = entries.hash"
    " FROM auth.audit_entries AS entries WHERE entries.tenant_id = heads.tenant_id AND entries.sequence = 2"
    " AND heads.tenant_id = %s"
)


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (
            by(
                "UPDATE auth.audit_entries SET document = replace(document, 'tenant.created', 'tenant.renamed')"
                " WHERE sequence = 2 AND tenant_id = %s"
            ),
            "entry 2 was edited: its hash does not fit",
        ),
        (
            by("UPDATE auth.audit_entries SET project_id = NULL WHERE sequence = 3 AND tenant_id = %s"),
            "entry 3 was edited: its columns and its document differ",
        ),
        (by("DELETE FROM auth.audit_entries WHERE sequence = 2 AND tenant_id = %s"), "entry 2 is missing"),
        (
            by(
                "UPDATE auth.audit_entries SET sequence = -sequence WHERE sequence IN (1, 2) AND tenant_id = %s",
                "UPDATE auth.audit_entries SET sequence = 3 + sequence WHERE sequence < 0 AND tenant_id = %s",
            ),
            "entry 1 does not follow the entry before it",
        ),
        (
            by(
                "INSERT INTO auth.audit_entries SELECT tenant_id, 4, gen_random_uuid(), project_id, document,"
                " previous_hash, hash FROM auth.audit_entries WHERE sequence = 3 AND tenant_id = %s"
            ),
            "entry 4 does not follow the entry before it",
        ),
        (by(CUT), "the chain ends with entry 2, its head says 3"),
        (by(CUT, MOVE_HEAD), "entries 3 to 3, which were signed or exported, are missing"),
        (
            by(
                "DELETE FROM auth.audit_entries WHERE tenant_id = %s",
                "DELETE FROM auth.audit_heads WHERE tenant_id = %s",
            ),
            "entries 1 to 3, which were signed or exported, are missing",
        ),
        (rewritten, "entries 3 to 3, which were signed or exported, are missing"),
        (
            by("UPDATE auth.audit_signed_heads SET signed_head = signed_head || 'x' WHERE tenant_id = %s"),
            "a signed head is not genuine",
        ),
        (
            by("UPDATE auth.audit_entries SET document = '{', hash = hash WHERE sequence = 1 AND tenant_id = %s"),
            "entry 1 was edited: its hash does not fit",
        ),
    ],
)
async def test_who_touches_a_chain_is_found_out(
    auth: AuthClient,
    verifier: Verifier,
    intruder: Connection,
    tamper: Callable[[Connection, str], None],
    found: str,
) -> None:
    ada = await auth.sign_up()
    assert await verifier.sign() > 0
    assert await verifier.faults(ada.tenant_id) == []

    tamper(intruder, ada.tenant_id)

    assert any(fault.startswith(found) for fault in await verifier.faults(ada.tenant_id))


async def test_a_chain_that_was_rewritten_and_grew_again_is_not_the_one_that_was_signed(
    auth: AuthClient, verifier: Verifier, intruder: Connection
) -> None:
    ada = await auth.sign_up()
    await verifier.sign()
    rewritten(intruder, ada.tenant_id)
    await auth.create_key(ada)

    assert await verifier.faults(ada.tenant_id) == ["entry 3 is not the one that was signed or exported"]


def export(path: Path, entries: Sequence[pb.SealedAuditEntry], signed_head: str) -> Path:
    lines = [
        json.dumps(
            {
                "sequence": entry.sequence,
                "previousHash": entry.previous_hash.hex(),
                "hash": entry.hash.hex(),
                "entry": json.loads(entry.document),
            }
        )
        for entry in entries
    ]
    path.write_text("\n".join([*lines, json.dumps({"signedHead": signed_head})]), encoding="utf-8")
    return path


def changed(kept: str, name: str, change: Callable[[str], str]) -> Path:
    copy = Path(kept).with_name(name)
    copy.write_text(change(Path(kept).read_text(encoding="utf-8")), encoding="utf-8")
    return copy


async def test_the_command_verifies_every_chain_and_holds_it_to_exports(
    settings: Settings,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PULSEGATE_POSTGRES_DSN", settings.dsn)
    monkeypatch.setenv("PULSEGATE_AUTH_MASTER_KEY", base64.urlsafe_b64encode(MASTER_KEY).decode())
    async with running_auth(settings) as auth, postgres.connected(settings.dsn) as runtime:
        ada = await auth.sign_up()
        await Verifier(runtime, HeadSignature.of(MasterKey(MASTER_KEY))).sign()
        request = pb.ListAuditEntriesRequest(tenant_id=ada.tenant_id)
        page = await auth.audit("ListAuditEntries", request, await auth.principal(ada))

    async def command(*arguments: str) -> None:
        await asyncio.to_thread(main, ["verify-audit", *arguments])

    kept = str(export(tmp_path / "kept.ndjson", page.entries, page.signed_head))
    capsys.readouterr()
    await command(kept)
    said = capsys.readouterr().out
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        by(CUT, MOVE_HEAD, "DELETE FROM auth.audit_signed_heads WHERE tenant_id = %s")(connection, ada.tenant_id)
    await command()
    with pytest.raises(SystemExit, match=r"FAULT entries 3 to 3, which were signed or exported, are missing"):
        await command(kept)

    # beside what processes that other tests have started may log meanwhile
    assert f"{ada.tenant_id}: 3 entries, 1 signed heads\nThe audit log is what was written to it.\n" in said
    for wrong in (
        tmp_path / "absent",
        export(tmp_path / "forged", [], page.signed_head + "x"),
        changed(kept, "edited", lambda text: text.replace("tenant.created", "tenant.renamed")),
        changed(kept, "unsigned", lambda text: text.rpartition("\n")[0]),
        changed(kept, "empty", lambda _: ""),
    ):
        with pytest.raises(SystemExit, match=r"is no export of the audit log"):
            await command(str(wrong))


async def test_an_export_that_contradicts_another_is_told_whichever_is_named_first(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PULSEGATE_POSTGRES_DSN", settings.dsn)
    monkeypatch.setenv("PULSEGATE_AUTH_MASTER_KEY", base64.urlsafe_b64encode(MASTER_KEY).decode())
    signature, tenant_id = HeadSignature.of(MasterKey(MASTER_KEY)), TenantId(str(uuid7()))
    heads = [Head(tenant_id=tenant_id, sequence=3, hash=bytes([fill]) * 32) for fill in (1, 2)]
    paths = [str(export(tmp_path / f"{head.hash[0]}", [], signature.sign(head, datetime.now(UTC)))) for head in heads]

    for named in (paths, paths[::-1]):
        with pytest.raises(SystemExit, match=r"contradicts what the exports say of entry 3"):
            await asyncio.to_thread(main, ["verify-audit", *named])


@pytest.mark.parametrize("edited", [1, 2])
async def test_an_export_of_which_one_entry_was_edited_and_hashed_anew_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, edited: int
) -> None:
    monkeypatch.setenv("PULSEGATE_POSTGRES_DSN", settings.dsn)
    monkeypatch.setenv("PULSEGATE_AUTH_MASTER_KEY", base64.urlsafe_b64encode(MASTER_KEY).decode())
    tenant_id = TenantId(str(uuid7()))

    def sealed(sequence: int, previous: bytes, action: str) -> pb.SealedAuditEntry:
        document = canonical({"action": action})
        entry_hash = hash_of(tenant_id, sequence, previous, document)
        return pb.SealedAuditEntry(sequence=sequence, previous_hash=previous, hash=entry_hash, document=document)

    entries = [sealed(1, GENESIS, "tenant.created")]
    for sequence in (2, 3):
        entries.append(sealed(sequence, entries[-1].hash, "key.created"))
    head = Head(tenant_id=tenant_id, sequence=3, hash=entries[-1].hash)
    signed = HeadSignature.of(MasterKey(MASTER_KEY)).sign(head, datetime.now(UTC))
    entries[edited - 1] = sealed(edited, entries[edited - 1].previous_hash, "key.renamed")

    with pytest.raises(SystemExit, match=rf"contradicts what the exports say of entry {edited} before"):
        await asyncio.to_thread(main, ["verify-audit", str(export(tmp_path / "edited", entries, signed))])


class CountedSignature(HeadSignature):
    """How many signatures were read."""

    read_so_far = 0

    def read(self, signed_head: str) -> Head | None:
        self.read_so_far += 1
        return super().read(signed_head)


def long_chain(connection: Connection, signature: HeadSignature, entries: int) -> TenantId:
    """Whose it is: each of its entries was signed."""
    tenant_id, before, now = TenantId(str(uuid7())), bytes(32), datetime.now(UTC)
    with connection.transaction():
        for sequence in range(1, entries + 1):
            ids = {"id": str(uuid7()), "tenantId": tenant_id, "projectId": ""}
            document = json.dumps(ids)
            head = Head(tenant_id=tenant_id, sequence=sequence, hash=hash_of(tenant_id, sequence, before, document))
            connection.execute(
                "INSERT INTO auth.audit_entries VALUES (%s, %s, %s, NULL, %s, %s, %s)",
                (tenant_id, sequence, ids["id"], document, before, head.hash),
            )
            sign(connection, head, signature.sign(head, now))
            before = head.hash
        connection.execute("INSERT INTO auth.audit_heads VALUES (%s, %s, %s)", (tenant_id, entries, before))
    return tenant_id


def sign(connection: Connection, head: Head, signed_head: str) -> None:
    connection.execute(
        "INSERT INTO auth.audit_signed_heads VALUES (%s, %s, %s)"
        " ON CONFLICT (tenant_id, sequence) DO UPDATE SET signed_head = excluded.signed_head",
        (head.tenant_id, head.sequence, signed_head),
    )


@pytest_asyncio.fixture(loop_scope="module")
async def alone(database: Database) -> AsyncIterator[tuple[Verifier, Connection, CountedSignature]]:
    """Where there is no other chain; beside who may do anything there."""
    signature = CountedSignature(Ed25519PrivateKey.generate())
    async with postgres.connected(database.dsn("auth")) as runtime:
        with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
            yield Verifier(runtime, signature), connection, signature


async def test_while_many_signatures_are_verified_others_have_their_turn(
    alone: tuple[Verifier, Connection, CountedSignature],
) -> None:
    verifier, connection, signature = alone
    long_chain(connection, signature, 2000)
    read = [0]

    async def look() -> None:
        while True:
            read.append(signature.read_so_far)
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    assert await ChainWatch(verifier.database, signature, SystemClock()).verify() == 0
    looking.cancel()

    assert signature.read_so_far == 2000
    assert max(after - before for before, after in pairwise(read)) < 200


async def test_whose_chains_there_are_is_found_without_reading_them(
    alone: tuple[Verifier, Connection, CountedSignature],
) -> None:
    verifier, connection, signature = alone
    tenants = sorted(long_chain(connection, signature, 400) for _ in range(3))
    async with verifier.database.transaction(role=AUDITOR_ROLE) as of_auditor:
        assert await SignedHeadStorage().tenants(of_auditor) == tenants
        cursor = await of_auditor.execute(
            "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int AS rows FROM pg_stat_xact_user_tables"
            " WHERE relname IN ('audit_entries', 'audit_signed_heads')"
        )
        [read] = await cursor.fetchall()
    assert read["rows"] < 50


async def test_signed_heads_are_held_to_their_entries_a_page_at_a_time(
    alone: tuple[Verifier, Connection, CountedSignature], monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier, connection, signature = alone
    tenant_id = long_chain(connection, signature, 1200)
    pages, page = list[int](), SignedHeadStorage.page

    async def counted(*arguments: Any) -> Mapping[int, str]:
        answer = await page(*arguments)
        pages.append(len(answer))
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(SignedHeadStorage, "page", counted)
        [chain] = await verified_chains(verifier.database, signature, {})
    assert (chain.entries, chain.signed_heads, chain.faults) == (1200, 1200, [])
    assert max(pages) == 500

    for sequence in (500, 501, 1100):
        head = Head(tenant_id=tenant_id, sequence=sequence, hash=bytes(32))
        sign(connection, head, signature.sign(head, datetime.now(UTC)))
    by(
        "UPDATE auth.audit_signed_heads SET sequence = sequence + 1000 WHERE sequence = 900 AND tenant_id = %s",
        "DELETE FROM auth.audit_entries WHERE sequence BETWEEN 300 AND 400 AND tenant_id = %s",
    )(connection, tenant_id)
    assert await verifier.faults(tenant_id, {1150: bytes(32)}) == [
        "entry 300 is missing: entry 401 follows entry 299",
        "entry 401 does not follow the entry before it",
        "entry 500 is not the one that was signed or exported",
        "entry 501 is not the one that was signed or exported",
        "a signed head is not genuine",
        "the signed head of entry 1150 contradicts an export",
        "entry 1100 is not the one that was signed or exported",
        "entry 1150 is not the one that was signed or exported",
    ]


def heads_signed(connection: Connection, tenant_id: str) -> int:
    query = "SELECT FROM auth.audit_signed_heads WHERE tenant_id = %s"
    return len(connection.execute(query, (tenant_id,)).fetchall())


@pytest.mark.parametrize(
    "tamper",
    [
        rewritten,
        by("UPDATE auth.audit_signed_heads SET signed_head = signed_head || 'x' WHERE tenant_id = %s"),
        by("DELETE FROM auth.audit_entries WHERE sequence > 3 AND tenant_id = %s"),
        by("UPDATE auth.audit_entries SET document = document || ' ' WHERE sequence = 4 AND tenant_id = %s"),
    ],
)
async def test_a_chain_that_does_not_go_on_from_what_was_signed_is_not_signed_and_refused_to_readers_too(
    auth: AuthClient, verifier: Verifier, intruder: Connection, tamper: Callable[[Connection, str], None]
) -> None:
    ada = await auth.sign_up()
    await verifier.sign()
    for _ in range(3):
        await auth.create_key(ada)

    tamper(intruder, ada.tenant_id)
    await verifier.sign()

    assert heads_signed(intruder, ada.tenant_id) == 1
    assert await verifier.signer().signed_now(TenantId(ada.tenant_id)) == ""
    request = pb.ListAuditEntriesRequest(tenant_id=ada.tenant_id)
    assert (await auth.audit("ListAuditEntries", request, await auth.principal(ada))).signed_head == ""


async def test_who_rewrites_a_chain_with_its_signatures_does_not_deceive_the_process_that_signed(
    auth: AuthClient, verifier: Verifier, intruder: Connection
) -> None:
    ada = await auth.sign_up()
    signer = verifier.signer()
    assert await signer.signed_now(TenantId(ada.tenant_id))

    rewritten(intruder, ada.tenant_id)
    await signer.sign()

    assert heads_signed(intruder, ada.tenant_id) == 0
    assert await signer.signed_now(TenantId(ada.tenant_id)) == ""


async def test_an_export_that_contradicts_a_signed_head_is_told(auth: AuthClient, verifier: Verifier) -> None:
    ada = await auth.sign_up()
    await verifier.sign()

    faults = await verifier.faults(ada.tenant_id, {3: bytes(32)})

    assert faults == [
        "the signed head of entry 3 contradicts an export",
        "entry 3 is not the one that was signed or exported",
    ]


async def test_heads_are_signed_by_themselves_and_each_once(settings: Settings, database: Database) -> None:
    async with running_auth(settings) as auth, postgres.connected(database.dsn("auth")) as runtime:
        ada = await auth.sign_up()
        verifier = Verifier(runtime, HeadSignature.of(MasterKey(MASTER_KEY)))
        await verifier.sign()

        assert await verifier.sign() == 0
        assert await verifier.faults(ada.tenant_id) == []


async def test_heads_are_signed_after_the_database_was_away(
    settings: Settings, database: Database, clock: MovableClock
) -> None:
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE auth.audit_heads RENAME TO away")
        async with running_auth(settings, clock) as auth:
            connection.execute("ALTER TABLE auth.away RENAME TO audit_heads")
            ada = await auth.sign_up()

            async def signed() -> bool:
                await clock.advance(timedelta(seconds=60))
                query = "SELECT FROM auth.audit_signed_heads WHERE tenant_id = %s"
                return bool(connection.execute(query, (ada.tenant_id,)).fetchall())

            await eventually(signed)


async def test_each_process_verifies_daily_and_says_what_it_found(
    settings: Settings, database: Database, clock: MovableClock
) -> None:
    signature = HeadSignature.of(MasterKey(MASTER_KEY))
    async with running_auth(settings, clock) as auth, postgres.connected(settings.dsn) as runtime:
        ada = await auth.sign_up()
        await Verifier(runtime, signature).sign()
        assert await ChainWatch(runtime, signature, clock).verify() == 0
        assert figure("faults") == 0
        assert figure("verified_timestamp_seconds") == pytest.approx(clock.now_ms() / 1000, abs=60)
        edit = "UPDATE auth.audit_entries SET document = document || ' ' WHERE sequence = 2 AND tenant_id = %s"
        with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
            by(edit)(connection, ada.tenant_id)

        async def found() -> bool:
            await clock.advance(timedelta(minutes=10))
            return figure("faults") == 1

        await eventually(found)


async def test_chains_that_cannot_be_read_are_verified_and_signed_as_soon_as_they_can(
    settings: Settings, database: Database, clock: MovableClock
) -> None:
    async with running_auth(settings, clock):
        with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
            connection.execute("ALTER TABLE auth.audit_heads RENAME TO away")
            with logged_by(audit_watch) as said:

                async def tried() -> bool:
                    await clock.advance(timedelta(minutes=10))
                    return any(line["event"] == "audit chains not verified" for line in said)

                await eventually(tried)
            connection.execute("ALTER TABLE auth.away RENAME TO audit_heads")
        since = clock.now_ms() / 1000

        async def seen_to() -> bool:
            await clock.advance(timedelta(minutes=10))
            return min(figure("verified_timestamp_seconds"), figure("heads_signed_timestamp_seconds")) > since

        await eventually(seen_to)


def figure(name: str) -> float:
    return REGISTRY.get_sample_value(f"pulsegate_auth_audit_{name}") or 0.0
