"""Entries of the audit log: one a change, in its transaction, kept until auth has them."""

import psycopg
import pytest

from chassis.errors import Conflict
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from tests.integration.config.service import WRITER, Config, StandInAudit, StartConfig, counter
from tests.suite_database import Database
from tests.waiting import eventually

SUBJECT = "0192f0c1-0000-7000-8000-00000000000a"


def waiting(database: Database) -> int:
    with psycopg.connect(database.superuser_dsn) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM config.audit_outbox").fetchall()
    return int(count)


async def test_every_change_reaches_the_audit_log_with_who_did_what_to_what(config: Config, database: Database) -> None:
    ada = config.person(scopes=(*WRITER, "keys:write"))
    made = await ada.create(counter())
    changed = counter(help="All of them.", labels=[pb.Label(name="plan")])
    await ada.update(made.id, changed, 1)
    await ada.update(made.id, changed, 2)
    with pytest.raises(Conflict):
        await ada.create(counter())
    await ada.delete(made.id)
    for decided in (True, True):
        await ada.let_data_define(decided)
    assert await config.define_from_data(ada.tenant_id, ada.project_id, counter("clicks_total")) == 1

    entries = await config.audit.arrived(5)

    assert [(entry["action"], entry["target"]["kind"], entry["target"]["name"]) for entry in entries] == [
        ("metric.created", "metric", "checkouts_total"),
        ("metric.updated", "metric", "checkouts_total"),
        ("metric.deleted", "metric", "checkouts_total"),
        ("project_settings.changed", "project", ""),
        ("metric.created", "metric", "clicks_total"),
    ]
    assert [entry["details"] for entry in entries[:4]] == [
        {"type": "counter", "version": 1, "changed": []},
        {"type": "counter", "version": 2, "changed": ["help", "labels"]},
        {"type": "counter", "version": 3, "changed": []},
        {"autoDefinition": True, "before": {"autoDefinition": False}},
    ]
    assert [entry["actor"]["kind"] for entry in entries] == ["secret"] * 4 + ["service"]
    assert {entry["actor"]["id"] for entry in entries[:4]} == {SUBJECT}
    assert {(entry["tenantId"], entry["projectId"], entry["service"]) for entry in entries} == {
        (ada.tenant_id, ada.project_id, "config")
    }

    async def none_waits() -> bool:
        return waiting(database) == 0

    await eventually(none_waits)


async def test_what_auth_does_not_take_waits_over_a_restart_and_arrives_once(
    start_config: StartConfig, database: Database
) -> None:
    audit = StandInAudit()  # type: ignore[abstract]  # only what config calls
    audit.trouble = "refused"
    async with start_config(audit=audit) as config:
        ada = config.person()
        await ada.create(counter("first_total"))
        await ada.create(counter("second_total"))

        async def tried() -> bool:
            return audit.calls > 1

        await eventually(tried)
    assert (audit.entries, waiting(database)) == ([], 2)

    audit.trouble = "lost"
    async with start_config(audit=audit):
        await audit.arrived(2)
        audit.trouble = ""

        async def none_waits() -> bool:
            return waiting(database) == 0

        await eventually(none_waits)

    assert [entry["target"]["name"] for entry in audit.entries] == ["first_total", "second_total"]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT FROM audit_outbox",
        "UPDATE audit_outbox SET document = ''",
        "DELETE FROM audit_outbox",
        "TRUNCATE audit_outbox",
    ],
)
def test_the_role_that_changes_definitions_can_only_add_entries(database: Database, statement: str) -> None:
    with (
        psycopg.connect(database.dsn("config")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())
