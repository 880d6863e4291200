"""The version after this one: the same code, and additive migrations that bring a column more for every table."""

import re
import shutil
from pathlib import Path

from deploy.local.bootstrap import SCHEMAS
from deploy.local.layout import CHECKOUT

_TABLE = re.compile(r"^CREATE TABLE (\w+)", re.MULTILINE)


def written(folder: Path) -> Path:
    """Its tree, made in that folder: what an image has of it."""
    for name in ("chassis", "contracts", "services"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "sdk").symlink_to(CHECKOUT / "sdk")
    for schema in SCHEMAS:
        _add_columns(folder / "services" / schema / "migrations")
    return folder


def _add_columns(migrations: Path) -> None:
    """One table a migration, so that none waits for a lock while it holds another."""
    before = [path.read_text() for path in sorted(migrations.glob("*.sql"))]
    tables = [table for text in before for table in _TABLE.findall(text)]
    assert tables, migrations
    for number, table in enumerate(tables, len(before) + 1):
        statement = f"ALTER TABLE {table} ADD COLUMN of_the_next_version integer NOT NULL DEFAULT 0;\n"
        (migrations / f"{number:04}_further_column_of_{table}.sql").write_text(statement)
