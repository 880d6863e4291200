"""The logs of the stack's processes: two files each, so that none fills the disk however long it runs."""

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

#: A log that is larger becomes `<name>.log.1`, in the place of the one before it.
MOST_BYTES = 16 << 20

_AT_ONCE_BYTES = 1 << 16


def keep(output: IO[bytes], log: Path, most_bytes: int = MOST_BYTES) -> None:
    """Appends what a process writes to its log until the process has ended, then closes `output`. Blocks."""
    with output:
        while written := os.read(output.fileno(), _AT_ONCE_BYTES):
            with suppress(OSError):  # a full disk costs lines, and must not block the process
                _append(written, log, most_bytes)


def _append(written: bytes, log: Path, most_bytes: int) -> None:
    lines, line_end, begun = written.rpartition(b"\n")
    with log.open("ab") as file:
        file.write(lines + line_end)
        size = file.tell()
    if size > most_bytes and (line_end or size > 2 * most_bytes):
        log.replace(log.with_name(f"{log.name}.1"))
    with log.open("ab") as file:
        file.write(begun)
