"""What the Makefile says when something that it needs is not there."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT

_MODULES = "sdk/browser/node_modules/.package-lock.json"


@pytest.mark.parametrize(("audit", "made"), [(0, 0), (1, 2), (2, 0)])
def test_make_security_fails_for_what_is_known_and_tells_where_nothing_could_be_learnt(
    tmp_path: Path, audit: int, made: int
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *deploy.audit) exit {audit};; *) echo "attacks" "$@";; esac\n')
    python.chmod(0o755)
    ended = subprocess.run(
        ["make", "-o", "build", "-o", "scan", "-o", ".tools/audit/.installed", "security", f"PYTHON={python}"],
        cwd=CHECKOUT,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == made, ended.stderr
    assert "attacks -m pytest" in ended.stdout
    assert ("NOT AUDITED" in ended.stderr) == (audit == 2)


@pytest.fixture
def scanned(tmp_path: Path) -> Path:
    """A checkout with scanners that find nothing; the one of secrets keeps in `scanned` what it was given."""
    (tmp_path / "requirements").mkdir()
    for name in ("Makefile", "requirements/audit.txt", "requirements/install.sh"):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    programs = tmp_path / ".tools" / "audit" / "bin"
    programs.mkdir(parents=True)
    for name, text in {"bandit": "exit 0", "detect-secrets-hook": 'printf "%s\\n" "$@" >>scanned'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    (programs.parent / ".installed").touch()
    return tmp_path


def _scan(folder: Path) -> "subprocess.CompletedProcess[str]":
    apart = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "GIT"))}
    told = {**apart, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    return subprocess.run(["make", "scan"], cwd=folder, env=told, capture_output=True, text=True, timeout=30)


def test_every_file_of_the_checkout_is_looked_through_for_secrets(scanned: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=scanned, check=True)
    subprocess.run(["git", "add", "Makefile", "requirements"], cwd=scanned, check=True)
    ended = _scan(scanned)
    assert ended.returncode == 0, ended.stderr
    assert (scanned / "scanned").read_text().endswith("\nMakefile\nrequirements/audit.txt\nrequirements/install.sh\n")


def test_where_git_names_no_files_the_scan_fails(scanned: Path) -> None:
    ended = _scan(scanned)
    assert ended.returncode == 2
    assert "not a git repository" in ended.stderr
    assert not (scanned / "scanned").exists()


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
