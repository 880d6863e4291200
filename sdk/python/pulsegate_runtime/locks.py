"""Lock files: a lock lasts as long as its process, however that ends."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


def try_lock(path: Path) -> int | None:
    """A descriptor that locks `path` until it is closed or the process ends; None while somebody else holds it.

    Raises OSError where the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):  # else its last holder has just removed it
            return descriptor
    os.close(descriptor)
    return None


def remove_lock(descriptor: int, path: Path) -> None:
    """Remove a lock file, then unlock it: whoever locks the file next finds it gone. Raises OSError."""
    try:
        if sys.platform != "win32":
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    if sys.platform == "win32":  # where an open file cannot be removed, neither by us nor from under somebody else
        path.unlink(missing_ok=True)
