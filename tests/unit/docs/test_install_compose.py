"""A backup that follows docs/install-compose.md comes back as it says; an upgrade leaves nothing behind."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.local.layout import CHECKOUT
from tests import compose_file
from tests.console_blocks import commands

_GUIDE = CHECKOUT / "docs" / "install-compose.md"
_COMPOSE = yaml.safe_load(compose_file.FILE.read_text())
_LASTING = {
    f"{_COMPOSE['name']}_{source}"
    for service in compose_file.services().values()
    if "profiles" not in service
    for source in (volume.split(":")[0] for volume in service.get("volumes", []))
    if source in _COMPOSE["volumes"]
}
#: Volumes are folders, and a container is a process that sees them where it mounts them.
_DOCKER = """#!/bin/bash
set -euo pipefail
case "$*" in
"compose --file deploy/compose/compose.yaml "*)
    test -f "$3"
    case "${*:4}" in
    stop) rm -f running ;;
    create) (cd volumes && mkdir -p $LASTING) ;;
    start | "up --detach --wait") touch running ;;
    *) exit 64 ;;
    esac ;;
"ps --filter label=com.docker.compose.project=$PROJECT") if test -e running; then echo running; fi ;;
"volume ls --quiet --filter label=com.docker.compose.project=$PROJECT") ls volumes ;;
"run --rm --volume "*)
    test ! -e running
    shift 2
    seen=()
    while [ "$1" = --volume ]; do
        IFS=: read -r source path _ <<<"$2"
        case "$source" in /*) ;; *) source=$PWD/volumes/$source ;; esac
        test -d "$source"
        seen+=(-e "s#$path#$source#g")
        shift 2
    done
    grep -q "image: $1" deploy/compose/compose.yaml
    for each in "${@:2}"; do command+=("$(sed "${seen[@]}" <<<"$each")"); done
    exec "${command[@]}" ;;
*) exit 64 ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout whose stack runs, beside the programs that are on the PATH."""
    folder = tmp_path / "checkout" / "deploy" / "compose"
    folder.mkdir(parents=True)
    shutil.copy(compose_file.FILE, folder)
    shutil.copy(compose_file.FOLDER / ".env.example", folder / ".env")
    compose_file.secrets(folder)
    for volume in _LASTING:
        (tmp_path / "checkout" / "volumes" / volume).mkdir(parents=True)
        (tmp_path / "checkout" / "volumes" / volume / "data").write_text(f"of {volume}")
    (tmp_path / "checkout" / "running").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(_DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    return tmp_path


def _type(machine: Path, section: str) -> str:
    known = {"PROJECT": _COMPOSE["name"], "LASTING": " ".join(sorted(_LASTING)), "HOME": str(machine)}
    script = "\n".join(["set -euo pipefail", *commands(_GUIDE, section)])
    return subprocess.run(
        ["bash", "-c", script],
        cwd=machine / "checkout",
        env=known | {"PATH": f"{machine}/bin:{os.environ['PATH']}"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def _state(machine: Path) -> dict[str, str]:
    paths = (path for path in (machine / "checkout").rglob("*") if path.is_file())
    return {str(path.relative_to(machine)): path.read_text() for path in paths}


def _back_up(machine: Path) -> Path:
    """The backup, of the day that the section after it names."""
    _type(machine, "Back it up")
    (made,) = machine.glob("pulsegate-*")
    assert made.stat().st_mode & 0o777 == 0o700
    return made.rename(machine / "pulsegate-2026-11-22")


def test_a_backup_comes_back_over_what_is_there(machine: Path) -> None:
    before = _state(machine)
    _back_up(machine)
    assert _state(machine) == before
    for volume in (machine / "checkout" / "volumes").iterdir():
        (volume / "data").write_text("counted since")
        (volume / ".new").write_text("since")
    said = _type(machine, "Restore it")
    assert {Path(line).stem for line in said.splitlines()} == _LASTING
    assert _state(machine) == before


def test_a_backup_comes_back_on_another_machine(machine: Path) -> None:
    before = _state(machine)
    _back_up(machine)
    for lost in ("volumes", "deploy/compose/secrets"):
        shutil.rmtree(machine / "checkout" / lost)
    (machine / "checkout" / "volumes").mkdir()
    for lost in ("running", "deploy/compose/.env"):
        (machine / "checkout" / lost).unlink()
    _type(machine, "Restore it")
    assert _state(machine) == before


def test_it_names_the_volumes_that_are_there_without_a_profile() -> None:
    text = _GUIDE.read_text()
    assert all(f"`{volume}`" in text for volume in _LASTING)
    assert f"com.docker.compose.project={_COMPOSE['name']}" in text


def _profile_of_what_reads_the_checkout() -> dict[str, tuple[str, ...]]:
    """Service → its profiles. `up --build` makes anew what it builds; Postgres reads its own for a new volume only."""
    return {
        name: tuple(service.get("profiles", []))
        for name, service in compose_file.services().items()
        for volume in service.get("volumes", [])
        if "build" not in service and volume.startswith(".") and ":/docker-entrypoint-initdb.d/" not in volume
    }


def test_an_upgrade_restarts_what_reads_files_of_the_checkout() -> None:
    words = (shlex.split(command, comments=True) for command in commands(_GUIDE))
    always, observed = (typed[5:] for typed in words if typed[4:5] == ["restart"])
    restarted = dict.fromkeys(always, ()) | dict.fromkeys(observed, ("observability",))
    assert restarted == _profile_of_what_reads_the_checkout()
