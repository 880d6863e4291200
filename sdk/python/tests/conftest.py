"""Fixtures of the runtime's tests: a real ingestion server, clients in this process, programs in others."""

import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

RUNTIME_DIRECTORY = Path(__file__).parent.parent
sys.path[:0] = [str(RUNTIME_DIRECTORY), str(Path(__file__).parent)]

from ingestion_server import IngestionServer  # noqa: E402
from pulsegate_runtime import Client  # noqa: E402

PREAMBLE = f"""
import os, signal, sys, time
sys.path.insert(0, {str(RUNTIME_DIRECTORY)!r})
from pulsegate_runtime import Client
"""


@pytest.fixture(autouse=True)
def nothing_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are rare in all of a process; each test here has its own."""
    monkeypatch.setattr("pulsegate_runtime.log._warning_due", {})


@pytest.fixture
def server() -> Iterator[IngestionServer]:
    with IngestionServer() as running:
        yield running


@pytest.fixture
def make_client(server: IngestionServer) -> Iterator[Callable[..., Client]]:
    """Makes clients of `server` (or of another `endpoint`, with another `key`) that hurry; closes them at the end."""
    clients: List[Client] = []

    def make(**options: object) -> Client:
        endpoint = str(options.pop("endpoint", server.endpoint))
        hurried = {"flush_interval_seconds": 0.05, "retry_base_seconds": 0.02, "retry_cap_seconds": 0.1, **options}
        key = str(hurried.pop("key", "sk_test"))
        clients.append(Client(endpoint, key, **hurried))  # type: ignore[arg-type]
        return clients[-1]

    yield make
    for client in clients:
        client.close(0.5)


@pytest.fixture
def start_program() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Runs Python source in a process of its own, the runtime imported; its arguments are `sys.argv[1:]`."""
    programs: List["subprocess.Popen[str]"] = []

    def start(source: str, *arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", PREAMBLE + source, *map(str, arguments)]
        program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        programs.append(program)
        return program

    yield start
    for program in programs:
        program.kill()
        program.communicate()
