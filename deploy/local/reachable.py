"""Postgres refuses to run as root, so root runs it as `nobody`, who must be able to reach its programs and data."""

import os
import secrets
import shutil
import stat
from pathlib import Path

UNPRIVILEGED_USER = "nobody"

#: Where root keeps what `nobody` cannot reach at its own place, such as below /root.
_STATE = Path("/var/lib/pulsegate")
_PASS_THROUGH = 0o711


def unprivileged_user() -> str | None:
    """Whom to run as instead of root; None where the caller is not root."""
    return UNPRIVILEGED_USER if os.geteuid() == 0 else None


def everybody_reaches(path: Path) -> bool:
    """Whether each folder above the path lets everybody pass through."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)


def reachable_folder(path: Path) -> Path:
    """The folder, made where it is missing; for root a link to one that `nobody` can reach, where that is needed.

    The link lies in the caller's folder and its target has a random name: without the link nobody finds the old data,
    as is right when the caller has deleted it.
    """
    if unprivileged_user() and not path.is_symlink() and not path.exists() and not everybody_reaches(path):
        target = _state() / secrets.token_hex(8)
        target.mkdir()
        path.symlink_to(target)
    path.mkdir(exist_ok=True)
    return path.resolve()


def reachable_copies(installed: Path, names: tuple[str, ...], version: str) -> Path:
    """The folder where the named packages are installed; for root one with copies, where `nobody` cannot reach it."""
    if unprivileged_user() is None or everybody_reaches(installed / names[0]):
        return installed
    copies = _state() / f"{names[0]}-{version}"
    if not copies.exists():
        unfinished = copies.with_name(f"{copies.name}.{os.getpid()}")
        for name in names:
            if (installed / name).is_dir():
                shutil.copytree(installed / name, unfinished / name, symlinks=True)
        try:
            unfinished.rename(copies)
        except OSError:  # somebody else was faster
            shutil.rmtree(unfinished)
    _open(copies)
    return copies


def _state() -> Path:
    """Made, or mended: whatever root's umask is, everybody may pass through."""
    _STATE.mkdir(parents=True, exist_ok=True)
    _STATE.chmod(_PASS_THROUGH)
    return _STATE


def _open(tree: Path) -> None:
    """Lets everybody read what the owner reads, and run what the owner runs."""
    for path in (tree, *tree.rglob("*")):
        mode = path.lstat().st_mode
        owners = mode & (stat.S_IRUSR | stat.S_IXUSR)
        wanted = mode | owners >> 3 | owners >> 6
        if wanted != mode and not path.is_symlink():
            path.chmod(stat.S_IMODE(wanted))
