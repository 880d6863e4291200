"""Programs of Debian's packages, on PATH or fetched into a folder, without root."""

import os
import shutil
import subprocess
from pathlib import Path


class DebianUnavailable(Exception):
    """The packages could not be fetched: no apt-get, no network, or no such package."""


def find_program(name: str, folder: Path, *packages: str) -> Path:
    """A program on PATH, else in `folder`, which is filled with the packages first; fetching takes a while, once.

    Raises DebianUnavailable.
    """
    if on_path := shutil.which(name):
        return Path(on_path)
    fetched = folder / "usr" / "bin" / name
    if not fetched.exists():
        _fetch(packages, folder)
    return fetched


def fetched_program(path: str, folder: Path, *packages: str) -> Path:
    """A program at `path` within `folder`, whatever is on PATH; its packages come with what they need and this machine
    lacks. Its libraries are those of `libraries`.

    Raises DebianUnavailable.
    """
    fetched = folder / path
    if not fetched.exists():
        _fetch(packages, folder, with_dependencies=True)
    return fetched


def libraries(folder: Path) -> str:
    """The value of LD_LIBRARY_PATH for fetched programs."""
    return ":".join(map(str, (folder / "usr" / "lib").glob("*-linux-gnu*")))


def _fetch(packages: tuple[str, ...], folder: Path, *, with_dependencies: bool = False) -> None:
    """Downloads packages with package lists of its own, which need no root, and unpacks them in place of the folder."""
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
    for needed in ("state/lists/partial", "cache/archives/partial"):
        (unfinished / needed).mkdir(parents=True)
    apt_get = ["apt-get", "-qq", "-o", f"Dir::State={unfinished}/state", "-o", f"Dir::Cache={unfinished}/cache"]
    try:
        _run([*apt_get, "update"], unfinished)
        missing = _missing(apt_get, packages, unfinished) if with_dependencies else set()
        _run([*apt_get, "download", *{*packages, *missing}], unfinished)
        for package in unfinished.glob("*.deb"):
            _run(["dpkg-deb", "-x", str(package), str(unfinished)], unfinished)
            package.unlink()
        for apt in ("state", "cache"):
            shutil.rmtree(unfinished / apt)
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise DebianUnavailable(f"could not fetch {', '.join(packages)} from Debian") from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def _missing(apt_get: list[str], packages: tuple[str, ...], folder: Path) -> set[str]:
    """What would be installed with them."""
    steps = _run([*apt_get, "--simulate", "--no-install-recommends", "install", *packages], folder)
    return {step.split()[1] for step in steps.splitlines() if step.startswith("Inst ")}


def _run(argv: list[str], folder: Path) -> str:
    return subprocess.run(argv, cwd=folder, check=True, capture_output=True, timeout=300, text=True).stdout
