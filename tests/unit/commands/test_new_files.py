"""What a command leaves where it cannot write its file to the end."""

import tarfile
from pathlib import Path

import pytest

from pulsegate.new_files import new_file


def _write(path: Path, *, meanwhile: bytes = b"", whole: bool = True) -> None:
    with new_file(path) as file:
        file.write(b"mine")
        if meanwhile:
            path.write_bytes(meanwhile)
        if not whole:
            raise tarfile.TarError


def test_a_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    _write(tmp_path / "backup")
    assert (tmp_path / "backup").read_bytes() == b"mine"
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600


def test_one_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(tarfile.TarError):
        _write(tmp_path / "backup", whole=False)
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        _write(tmp_path / "backup", meanwhile=b"another's")
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"another's"]
