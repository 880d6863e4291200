"""What the Makefile says when something that it needs is not there."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT

pytestmark = pytest.mark.integration

_MODULES = "sdk/browser/node_modules/.package-lock.json"


def test_make_shows_why_npm_failed_and_what_to_do(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements", "sdk/browser/package.json", "sdk/browser/package-lock.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy
        copy(CHECKOUT / name, tmp_path / name)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("node", "npm"):
        (programs / name).symlink_to(CHECKOUT / ".venv" / "bin" / name)
    for stamp in (".installed", ".node"):
        (tmp_path / ".venv" / stamp).touch()
    nowhere = {"npm_config_registry": "http://127.0.0.1:9", "npm_config_cache": str(tmp_path / "cache")}
    began = time.monotonic()
    made = subprocess.run(
        ["make", _MODULES], cwd=tmp_path, env={**os.environ, **nowhere}, capture_output=True, text=True, timeout=100
    )
    assert made.returncode != 0
    assert "ECONNREFUSED" in made.stderr
    assert "npm_config_registry" in made.stderr
    assert time.monotonic() - began < 60
    assert not (tmp_path / _MODULES).exists()
