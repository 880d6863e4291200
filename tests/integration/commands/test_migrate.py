"""What `pulsegate migrate` says where a server does not let it in."""

import os
import subprocess
import sys
from pathlib import Path

from deploy.local.layout import CHECKOUT
from tests.suite_database import Database


def test_a_password_that_is_refused_is_told_in_a_line_and_not_shown(database: Database, tmp_path: Path) -> None:
    address = database.server.dsn(database.name, user="config_owner", password="hunter2")
    told = tmp_path / "installation.toml"
    told.write_text(
        'prometheus = "http://127.0.0.1:9"\nnats = "nats://127.0.0.1:9"\nprocesses = {}\n'
        f'database = "{address}"\nowners = {{config = "{address}"}}\n'
    )
    command = [sys.executable, "-m", "pulsegate", "--installation", str(told), "migrate"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "config cannot be migrated: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr
