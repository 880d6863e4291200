"""Where the Prometheus binary comes from: named, on PATH, or fetched from Debian into the data folder, without root."""

import os
import shutil
import subprocess
from pathlib import Path

HOW_TO_GET_IT = (
    "Prometheus was not found: install it (Debian: apt-get install prometheus) or name its binary with PROMETHEUS_BIN"
)


class PrometheusMissing(Exception):
    """There is no Prometheus and none could be fetched."""

    def __init__(self) -> None:
        super().__init__(HOW_TO_GET_IT)


def find_prometheus(named: Path | None, folder: Path) -> Path:
    """The binary; fetching takes a while, once. `folder` keeps it. Raises PrometheusMissing."""
    if named is not None:
        if not os.access(named, os.X_OK):
            raise PrometheusMissing
        return named.resolve()
    if on_path := shutil.which("prometheus"):
        return Path(on_path)
    fetched = folder / "usr" / "bin" / "prometheus"
    if not fetched.exists():
        _fetch(folder)
    return fetched


def _fetch(folder: Path) -> None:
    """Downloads Debian's package with package lists of its own, which need no root, and unpacks it."""
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
    for needed in ("state/lists/partial", "cache/archives/partial"):
        (unfinished / needed).mkdir(parents=True)
    apt_get = ["apt-get", "-qq", "-o", f"Dir::State={unfinished}/state", "-o", f"Dir::Cache={unfinished}/cache"]
    try:
        _run([*apt_get, "update"], unfinished)
        _run([*apt_get, "download", "prometheus"], unfinished)
        package = next(unfinished.glob("prometheus_*.deb"))
        _run(["dpkg-deb", "-x", str(package), str(unfinished)], unfinished)
        package.unlink()
        for apt in ("state", "cache"):
            shutil.rmtree(unfinished / apt)
    except (OSError, subprocess.SubprocessError, StopIteration) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise PrometheusMissing from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def _run(argv: list[str], folder: Path) -> None:
    subprocess.run(argv, cwd=folder, check=True, capture_output=True, timeout=300)
