"""What the Dockerfile says, without carrying it out: `make chart` does that."""

import re
import subprocess
import sys
from pathlib import Path

from deploy.local.layout import CHECKOUT
from tests.dockerfile import DOCKERFILE, Stage

_TEXT = DOCKERFILE.read_text()
_LAST_STAGE = _TEXT[_TEXT.rindex("\nFROM ") :]


def test_hadolint_finds_nothing_to_complain_of() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_the_process_is_nobody_in_particular_and_cannot_change_its_files() -> None:
    assert re.findall(r"^USER (.+)$", _LAST_STAGE, re.MULTILINE) == ["65532:65532"]
    assert "--chown" not in _LAST_STAGE
    assert "RUN" not in _LAST_STAGE[_LAST_STAGE.index("\nCOPY ") :].split()


def test_a_rehearsal_changes_nothing_of_this_machine(tmp_path: Path) -> None:
    stage = Stage(base="", folder=tmp_path)
    commands = re.findall(r"^RUN ((?:.+\\\n)*.+)$", _TEXT, re.MULTILINE)
    named = [path for command in commands for path in re.findall(r"(?<![\w./$}-])/\w[^\s'\"\\]*", stage.here(command))]
    assert len(commands) == _TEXT.count("\nRUN ")
    assert {path for path in named if not path.startswith(f"{tmp_path}/")} == {"/bin/sh"}


def test_packages_are_locked_for_the_python_that_runs_them() -> None:
    versions = set(re.findall(r"^FROM python:(\d+\.\d+)-slim", _TEXT, re.MULTILINE))
    assert versions == set(re.findall(r"--python-version (\S+)", (CHECKOUT / "Makefile").read_text()))


def test_nothing_but_what_is_copied_is_sent_to_the_engine() -> None:
    sent = {line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source for line in re.findall(r"^COPY (?!--from)(.+)$", _TEXT, re.MULTILINE) for source in line.split()[:-1]
    }
    assert all(any(source == each or source.startswith(f"{each}/") for each in sent) for source in copied)
    assert all(any(source == each or source.startswith(f"{each}/") for source in copied) for each in sent)
