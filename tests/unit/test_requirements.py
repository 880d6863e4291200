"""What is seen to before tests begin."""

import os
import subprocess
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT


@pytest.mark.parametrize("user", ["0", "1000"])
def test_a_machine_without_chromium_is_told_what_to_do(tmp_path: Path, user: str) -> None:
    for name, text in {"id": f"echo {user}", "apt-get": "echo no such package >&2; exit 100"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": str(tmp_path), "CHROMIUM_BIN": "no-chromium"}
    ran = subprocess.run(
        ["/bin/sh", str(CHECKOUT / "requirements/chromium.sh")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "name it with CHROMIUM_BIN" in ran.stderr.splitlines()[-1]
