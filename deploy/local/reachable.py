"""Postgres refuses to run as root, so root runs it as `nobody`, who must be able to reach its programs and data."""

import os
import secrets
import shutil
import stat
from pathlib import Path

UNPRIVILEGED_USER = "nobody"

#: Where root keeps what `nobody` cannot reach at its own place, such as below /root.
_STATE = Path("/var/lib/pulsegate")


def unprivileged_user() -> str | None:
    """Whom to run as instead of root; None where the caller is not root."""
    return UNPRIVILEGED_USER if os.geteuid() == 0 else None


def everybody_reaches(path: Path) -> bool:
    """Whether each folder above the path lets everybody pass through."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)


def reachable_folder(path: Path) -> Path:
    """The folder itself, made where it is missing; where others cannot reach it, a link to one that they can.

    The link lies in the caller's folder and its target has a random name: without the link nobody finds the old data,
    as is right when the caller has deleted it.
    """
    if not path.is_symlink() and not path.exists() and not everybody_reaches(path):
        target = _STATE / secrets.token_hex(8)
        target.mkdir(parents=True)
        path.symlink_to(target)
    path.mkdir(exist_ok=True)
    return path.resolve()


def reachable_copy(programs: Path, version: str) -> Path:
    """The folder of programs itself, or a copy of it where others cannot reach it."""
    if everybody_reaches(programs):
        return programs
    copy = _STATE / f"programs-{version}"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        unfinished = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(programs, unfinished, symlinks=True)
        try:
            unfinished.rename(copy)
        except OSError:  # somebody else was faster
            shutil.rmtree(unfinished)
    return copy
