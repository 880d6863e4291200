"""Where the Prometheus binary comes from: named, on PATH, or fetched from Debian into the data folder, without root."""

import os
from pathlib import Path

from deploy.local.debian import DebianUnavailable, find_program

HOW_TO_GET_IT = (
    "Prometheus was not found: install it (Debian: apt-get install prometheus) or name its binary with PROMETHEUS_BIN"
)


class PrometheusMissing(Exception):
    """There is no Prometheus and none could be fetched."""

    def __init__(self) -> None:
        super().__init__(HOW_TO_GET_IT)


class NotAProgram(Exception):
    """PROMETHEUS_BIN names something else."""


def find_prometheus(named: Path | None, folder: Path) -> Path:
    """The binary; fetching takes a while, once. `folder` keeps it. Raises NotAProgram, PrometheusMissing."""
    if named is not None:
        if not (named.is_file() and os.access(named, os.X_OK)):
            raise NotAProgram(f"PROMETHEUS_BIN: {named} is not a program; name Prometheus' binary, or do not set it")
        return named.resolve()
    try:
        return find_program("prometheus", folder, "prometheus")
    except DebianUnavailable as error:
        raise PrometheusMissing from error
