"""The checks that a developer has run before each commit, with nothing but what is locked and installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.local.layout import CHECKOUT

#: They look at the whole project, which is not in this test's repository.
_OF_ALL_FILES = "imports,types"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One with the hooks installed as CONTRIBUTING.md has it, and nothing in it yet."""
    for name in (".pre-commit-config.yaml", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(CHECKOUT / ".venv")
    for command in (["git", "init", "--quiet"], [".venv/bin/pre-commit", "install"]):
        assert _run(tmp_path, *command).returncode == 0
    return tmp_path


def _run(repository: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(repository),
        "PRE_COMMIT_HOME": str(repository / "hooks"),
        "SKIP": _OF_ALL_FILES,
        # No registry and no other repository is reached.
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        **{f"GIT_{who}_{what}": "ada@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    return subprocess.run(
        command,
        cwd=repository,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


def test_a_commit_against_the_style_is_refused(repository: Path) -> None:
    file = repository / "careless.py"
    for text, status, said in (("import os\n", 1, "F401"), ('"""Nothing in here."""\n', 0, "style....")):
        file.write_text(text)
        _run(repository, "git", "add", file.name)
        committed = _run(repository, "git", "commit", "--message", "A file")
        assert committed.returncode == status, committed.stdout
        assert said in committed.stdout


def test_every_hook_names_a_program_that_is_installed(repository: Path) -> None:
    validated = _run(repository, ".venv/bin/pre-commit", "validate-config")
    assert validated.returncode == 0, validated.stdout
    hooks = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for program in (hook["entry"].split()[0] for hook in hooks):
        assert shutil.which(program, path=os.environ["PATH"]) or (CHECKOUT / program).exists(), program
