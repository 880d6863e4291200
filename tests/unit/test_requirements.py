"""What is seen to before tests begin."""

import os
import re
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


def test_whatever_runs_tests_builds_what_they_need_before() -> None:
    rules = re.findall(r"^([a-z-]+): (.*)\n((?:\t.*\n)+)", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    testing = {name: needs.partition("##")[0].split() for name, needs, recipe in rules if "-m pytest" in recipe}
    assert {"test", "chaos", "security", "chart", "unit"} <= testing.keys()
    assert [name for name, needs in testing.items() if "build" not in needs] == []
