"""Logs of processes: bounded, and no line is lost or torn."""

import os
from pathlib import Path

from deploy.local import logs


def kept(log: Path, *writes: bytes, most_bytes: int) -> None:
    """What becomes of a log when a process writes and ends."""
    for written in writes:  # each read as it was written
        reading, writing = os.pipe()
        os.write(writing, written)
        os.close(writing)
        output = os.fdopen(reading, "rb")
        logs.keep(output, log, most_bytes)
        assert output.closed


def test_a_log_is_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    kept(log, b"one\ntw", b"o\n", b"three", most_bytes=100)
    assert log.read_bytes() == b"one\ntwo\nthree"


def test_a_log_that_grows_too_large_makes_room_between_two_lines(tmp_path: Path) -> None:
    log, older = tmp_path / "a.log", tmp_path / "a.log.1"
    lines = [b"%04d\n" % number for number in range(40)]
    kept(log, b"".join(lines[:30]) + b"00", b"30\n", most_bytes=100)
    assert older.read_bytes() == b"".join(lines[:30])
    assert log.read_bytes() == lines[30]
    kept(log, *lines[31:], most_bytes=20)
    assert older.read_bytes() + log.read_bytes() == b"".join(lines[35:])


def test_a_log_without_lines_is_bounded_too(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    kept(log, *[b"x" * 50] * 100, most_bytes=100)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 600


def test_a_disk_that_is_full_does_not_block_the_process(tmp_path: Path) -> None:
    kept(tmp_path / "absent" / "a.log", b"line\n" * 1000, most_bytes=100)
