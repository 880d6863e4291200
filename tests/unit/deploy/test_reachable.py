"""What the unprivileged user needs is within its reach, however strict root's umask is."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import reachable


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(reachable, "_STATE", tmp_path / "state")
    monkeypatch.setattr(reachable, "unprivileged_user", lambda: "nobody")
    return tmp_path / "state"


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    """A program and its data, in a folder of root's alone."""
    before = os.umask(0o077)
    program = tmp_path / "site-packages" / "server" / "bin" / "initdb"
    program.parent.mkdir(parents=True)
    program.touch(0o700)
    (program.parents[1] / "words").touch(0o600)
    yield tmp_path / "site-packages"
    os.umask(before)


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_copies_can_be_read_and_run_by_everybody(state: Path, installed: Path) -> None:
    copies = reachable.reachable_copies(installed, ("server",), "1.0")
    assert _mode(state) == 0o711
    folders = (copies, copies / "server", copies / "server" / "bin")
    assert [_mode(folder) for folder in folders] == [0o755] * 3
    assert _mode(copies / "server" / "bin" / "initdb") == 0o755
    assert _mode(copies / "server" / "words") == 0o644


def test_copies_of_an_earlier_run_with_a_strict_umask_are_mended(state: Path, installed: Path) -> None:
    copies = reachable.reachable_copies(installed, ("server",), "1.0")
    copies.chmod(0o700)
    (copies / "server" / "bin" / "initdb").chmod(0o700)
    state.chmod(0o700)
    assert reachable.reachable_copies(installed, ("server",), "1.0") == copies
    assert (_mode(state), _mode(copies), _mode(copies / "server" / "bin" / "initdb")) == (0o711, 0o755, 0o755)


def test_a_data_folder_below_one_of_roots_own_is_a_link_to_where_everybody_may_pass(
    state: Path, installed: Path
) -> None:
    folder = reachable.reachable_folder(installed / "postgres")
    assert folder.parent == state
    assert (installed / "postgres").resolve() == folder
    assert _mode(state) == 0o711
