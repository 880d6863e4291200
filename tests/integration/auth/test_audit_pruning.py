"""What is old leaves the audit log by the owner's command alone, is kept in exports, and the rest is still verified."""

import asyncio
import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest

from chassis import postgres
from chassis.errors import Unavailable
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1 import audit_pb2 as pb
from services.auth import audit_pruning
from services.auth.__main__ import main
from services.auth.audit_chain import Head, HeadSignature
from services.auth.audit_heads import HeadSigner
from services.auth.audit_pruning import PruningSettings, prune
from services.auth.audit_verification import VerificationSettings, verify
from services.auth.domain import TenantId
from services.auth.master_key import MasterKey
from services.auth.settings import Settings
from services.auth.storage.audit import AnchorStorage, AuditStorage, SignedHeadStorage
from tests.integration.auth.client import PASSWORD, AuthClient, Person, running_auth
from tests.integration.auth.clocks import MovableClock
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")

MASTER_KEY = bytes(range(32))


@dataclass(frozen=True)
class Keeper:
    """An operator, by a clock that moves, with a folder for exports."""

    database: Database
    clock: MovableClock
    folder: Path
    #: What the last pruning said.
    said: list[str] = field(default_factory=list)

    def signer(self, runtime: postgres.Database) -> HeadSigner:
        signature = HeadSignature.of(MasterKey(MASTER_KEY))
        return HeadSigner(runtime, AuditStorage(), SignedHeadStorage(), AnchorStorage(), signature, self.clock)

    async def prune(self, days: int | None = 30) -> Sequence[str]:
        settings = PruningSettings(dsn=self.database.owner_dsn("auth"), master_key=MASTER_KEY, retention_days=days)
        self.said.clear()
        await prune(settings, self.folder, self.clock, self.said.append)
        return list(self.said)

    async def verify(self) -> Sequence[str]:
        settings = VerificationSettings(dsn=self.database.dsn("auth"), master_key=MASTER_KEY)
        return await verify(settings, sorted(self.folder.glob("*.ndjson")))


@pytest.fixture
def keeper(database: Database, clock: MovableClock, tmp_path: Path) -> Keeper:
    return Keeper(database, clock, tmp_path)


@pytest.fixture
def intruder(database: Database) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        yield connection


async def signed_in(auth: AuthClient, person: Person) -> Person:
    """Once more, which is an entry."""
    request = accounts_pb2.SignInRequest(email=person.email, password=PASSWORD)
    answer = await auth.account("SignIn", request)
    return replace(person, access_token=answer.session.access_token)


async def sequences(auth: AuthClient, person: Person) -> tuple[list[int], str]:
    """Of the entries that are shown, and the signed head beside them."""
    request = pb.ListAuditEntriesRequest(tenant_id=person.tenant_id)
    page = await auth.audit("ListAuditEntries", request, await auth.principal(person))
    return [entry.sequence for entry in page.entries], page.signed_head


async def test_what_is_old_is_in_exports_and_the_rest_goes_on_from_there(
    settings: Settings, keeper: Keeper, clock: MovableClock
) -> None:
    async with running_auth(settings, clock) as auth, postgres.connected(settings.dsn) as runtime:
        ada, eve = await auth.sign_up(), await auth.sign_up()
        signer, long_silent = keeper.signer(runtime), keeper.signer(runtime)
        await signer.sign()
        assert await long_silent.signed_now(TenantId(ada.tenant_id))
        assert await keeper.prune() == []
        await clock.advance(timedelta(days=31))
        ada = await signed_in(auth, ada)
        assert await keeper.prune(days=None) == ["PULSEGATE_AUDIT_RETENTION_DAYS is not set: everything is kept."]

        pruned = await keeper.prune()

        assert sorted(line.partition(" are in")[0] for line in pruned) == sorted(
            f"{person.tenant_id}: 3 entries" for person in (ada, eve)
        )
        shown, signed_head = await sequences(auth, ada)
        assert (shown, bool(signed_head)) == ([4], True)
        # The process that has signed before them, and one that has signed nothing yet, go on alike.
        for one in (signer, keeper.signer(runtime)):
            assert await one.signed_now(TenantId(eve.tenant_id))
            assert await one.signed_now(TenantId(ada.tenant_id))
        await signer.sign()
        said = await keeper.verify()
        assert f"{ada.tenant_id}: 1 entries after 3 that were pruned, 2 signed heads" in said
        assert f"{eve.tenant_id}: 0 entries after 3 that were pruned, 1 signed heads" in said
        assert await keeper.prune() == []

        await clock.advance(timedelta(days=31))
        assert [line.partition(" are in")[0] for line in await keeper.prune()] == [f"{ada.tenant_id}: 1 entries"]
        assert said != await keeper.verify()
        assert await long_silent.signed_now(TenantId(ada.tenant_id))


async def ten_old_entries(keeper: Keeper, auth: AuthClient, runtime: postgres.Database) -> Person:
    """Whose they are: signed after the third, the seventh, the eighth and the tenth."""
    ada, signer = await auth.sign_up(), keeper.signer(runtime)
    for further in (0, 4, 1, 2):
        for _ in range(further):
            await auth.create_key(ada)
        await signer.sign()
    return ada


def signed_sequence(signed_head: str, signed_by: dict[str, str]) -> int:
    """What somebody reads who has the export alone. Raises where it was not signed with the key."""
    claims = jwt.decode(signed_head, jwt.PyJWK(signed_by), algorithms=["EdDSA"], options={"verify_aud": False})
    return int(claims["seq"])


async def test_a_long_chain_is_pruned_step_by_step(
    settings: Settings, keeper: Keeper, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_pruning, "_ENTRIES_OF_A_STEP", 3)
    async with running_auth(settings, clock) as auth, postgres.connected(settings.dsn) as runtime:
        ada = await ten_old_entries(keeper, auth, runtime)
        await clock.advance(timedelta(days=31))
        ada = await signed_in(auth, ada)
        await keeper.signer(runtime).sign()

        pruned = await keeper.prune()

        exports = [f"{ada.tenant_id}-{entries}.ndjson" for entries in ("1-3", "4-7", "8-10")]
        assert [line.partition(" are in ")[0] for line in pruned] == [
            f"{ada.tenant_id}: {entries} entries" for entries in (3, 4, 3)
        ]
        assert sorted(path.name for path in keeper.folder.iterdir()) == exports
        ends = [json.loads((keeper.folder / name).read_text().splitlines()[-1]) for name in exports]
        assert [signed_sequence(end["signedHead"], end["signedBy"]) for end in ends] == [3, 7, 10]
        assert f"{ada.tenant_id}: 1 entries after 10 that were pruned, 2 signed heads" in await keeper.verify()
        assert (await sequences(auth, ada))[0] == [11]
        assert await keeper.prune() == []


async def test_what_is_touched_while_a_chain_is_pruned_stays(
    settings: Settings,
    keeper: Keeper,
    clock: MovableClock,
    intruder: psycopg.Connection[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit_pruning, "_ENTRIES_OF_A_STEP", 3)
    prune_entries = AnchorStorage.prune

    async def with_an_intruder(storage: AnchorStorage, connection: Any, anchor: Head, signed_anchor: str) -> None:
        await prune_entries(storage, connection, anchor, signed_anchor)
        if anchor.sequence == 3:
            intruder.execute("UPDATE auth.audit_entries SET document = document || ' ' WHERE sequence = 5")

    monkeypatch.setattr(AnchorStorage, "prune", with_an_intruder)
    async with running_auth(settings, clock) as auth, postgres.connected(settings.dsn) as runtime:
        ada = await ten_old_entries(keeper, auth, runtime)
        await clock.advance(timedelta(days=31))

        with pytest.raises(SystemExit, match="NOT what was written"):
            await keeper.prune()

        assert [line.removeprefix(f"{ada.tenant_id}: ").partition(" are in ")[0] for line in keeper.said] == [
            "3 entries",
            "FAULT entry 5 was edited: its hash does not fit",
        ]

        ada = await signed_in(auth, ada)
        assert (await sequences(auth, ada))[0] == list(range(4, 12))
        assert [path.name for path in keeper.folder.glob("*.ndjson")] == [f"{ada.tenant_id}-1-3.ndjson"]


async def test_what_was_done_is_said_although_the_rest_could_not_be(
    settings: Settings, keeper: Keeper, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_pruning, "_ENTRIES_OF_A_STEP", 3)
    prune_entries = AnchorStorage.prune

    async def once(storage: AnchorStorage, connection: Any, anchor: Head, signed_anchor: str) -> None:
        if anchor.sequence > 3:
            raise Unavailable("The database is away.")
        await prune_entries(storage, connection, anchor, signed_anchor)

    monkeypatch.setattr(AnchorStorage, "prune", once)
    async with running_auth(settings, clock) as auth, postgres.connected(settings.dsn) as runtime:
        ada = await ten_old_entries(keeper, auth, runtime)
        await clock.advance(timedelta(days=31))

        with pytest.raises(Unavailable):
            await keeper.prune()

        exported = keeper.folder / f"{ada.tenant_id}-1-3.ndjson"
        assert keeper.said == [f"{ada.tenant_id}: 3 entries are in {exported} alone"]


FORGED = "the anchor of what was pruned is not genuine"
OF_ANOTHER_TENANT = (
    "UPDATE auth.audit_anchors AS one SET signed_anchor = another.signed_anchor"
    " FROM auth.audit_anchors AS another WHERE another.tenant_id <> one.tenant_id AND one.tenant_id = %s"
)
A_HEAD = (
    "UPDATE auth.audit_anchors AS one SET signed_anchor = head.signed_head FROM auth.audit_signed_heads AS head"
    " WHERE head.tenant_id = one.tenant_id AND one.tenant_id = %s"
)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM auth.audit_anchors WHERE tenant_id = %s", "entry 1 is missing"),
        ("UPDATE auth.audit_anchors SET signed_anchor = signed_anchor || 'x' WHERE tenant_id = %s", FORGED),
        (OF_ANOTHER_TENANT, FORGED),
        (A_HEAD, FORGED),
        ("DELETE FROM auth.audit_entries WHERE sequence = 4 AND tenant_id = %s", "entry 4 is missing"),
    ],
)
async def test_nobody_else_can_shorten_a_chain_and_have_it_look_pruned(
    settings: Settings,
    keeper: Keeper,
    clock: MovableClock,
    intruder: psycopg.Connection[tuple[Any, ...]],
    statement: str,
    found: str,
) -> None:
    async with running_auth(settings, clock) as auth, postgres.connected(settings.dsn) as runtime:
        ada, _ = await auth.sign_up(), await auth.sign_up()
        signer = keeper.signer(runtime)
        await signer.sign()
        await clock.advance(timedelta(days=31))
        await keeper.prune()
        ada = await signed_in(auth, ada)
        ada = await signed_in(auth, ada)

        intruder.execute(statement.encode(), (ada.tenant_id,))

        with pytest.raises(SystemExit, match=f"FAULT {found}"):
            await keeper.verify()
        with pytest.raises(SystemExit, match="NOT what was written"):
            await keeper.prune()
        assert await keeper.signer(runtime).signed_now(TenantId(ada.tenant_id)) == ""


async def test_an_anchor_that_contradicts_an_export_is_told(
    settings: Settings, keeper: Keeper, clock: MovableClock, intruder: psycopg.Connection[tuple[Any, ...]]
) -> None:
    async with running_auth(settings, clock) as auth, postgres.connected(settings.dsn) as runtime:
        ada = await auth.sign_up()
        await keeper.signer(runtime).sign()
    await clock.advance(timedelta(days=31))
    await keeper.prune()
    signature = HeadSignature.of(MasterKey(MASTER_KEY))
    [(text,)] = intruder.execute("SELECT signed_anchor FROM auth.audit_anchors WHERE tenant_id = %s", (ada.tenant_id,))
    anchor = signature.read_anchor(text)
    assert anchor is not None
    changed = signature.sign_anchor(replace(anchor, hash=bytes(32)), datetime.now(UTC))
    intruder.execute("UPDATE auth.audit_anchors SET signed_anchor = %s WHERE tenant_id = %s", (changed, ada.tenant_id))
    with pytest.raises(SystemExit, match="FAULT entry 3, the last one that was pruned, is not the one"):
        await keeper.verify()


async def test_the_command_reads_its_settings_and_wants_a_folder(
    settings: Settings,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PULSEGATE_POSTGRES_OWNER_DSN", database.owner_dsn("auth"))
    monkeypatch.setenv("PULSEGATE_AUTH_MASTER_KEY", base64.urlsafe_b64encode(MASTER_KEY).decode())
    await asyncio.to_thread(main, ["prune-audit", str(tmp_path)])
    assert "everything is kept" in capsys.readouterr().out
    monkeypatch.setenv("PULSEGATE_AUDIT_RETENTION_DAYS", "30")
    with pytest.raises(SystemExit, match="is no folder"):
        await asyncio.to_thread(main, ["prune-audit", str(tmp_path / "absent")])


@pytest.mark.parametrize("command", [["verify-audit"], ["prune-audit", "."]])
async def test_a_command_says_that_the_database_is_away(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    for name in ("PULSEGATE_POSTGRES_DSN", "PULSEGATE_POSTGRES_OWNER_DSN"):
        monkeypatch.setenv(name, "postgresql://auth:secret@127.0.0.1:1/pulsegate")
    monkeypatch.setenv("PULSEGATE_AUTH_MASTER_KEY", base64.urlsafe_b64encode(MASTER_KEY).decode())
    monkeypatch.setenv("PULSEGATE_AUDIT_RETENTION_DAYS", "30")

    with pytest.raises(SystemExit, match=r"^It could not go on: ") as ended:
        await asyncio.to_thread(main, command)

    assert "secret" not in str(ended.value)
