"""One process of the stack: how it is started, how one knows that it is ready, how it is stopped."""

import ctypes
import http.client
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local import logs
from deploy.local.layout import CHECKOUT

_PR_SET_PDEATHSIG = 1
_PROBE_SECONDS = 2.0


class NotReady(Exception):
    """What a program still lacks, in a few words."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """How to run one process. It ends when the process that started it ends, however that happens."""

    name: str
    argv: tuple[str, ...]
    #: both outputs are appended to it, see `logs`
    log: Path
    #: what it listens on, by purpose
    ports: Mapping[str, int]
    #: raises NotReady with the reason; may block for two seconds
    probe: Callable[[], None]
    environment: Mapping[str, str] = field(repr=False, default_factory=lambda: dict(os.environ))
    #: how long it may take from its start until it is ready
    ready_seconds: float = 30.0
    #: the user it runs as, where that is not the caller
    user: str | None = None
    #: asks it to end in good order
    stop_signal: signal.Signals = signal.SIGTERM
    #: sent by the kernel when the starting process is gone
    orphan_signal: signal.Signals = signal.SIGKILL
    #: call before each start: puts right what a death in mid-work may have left behind; may block
    clear_up: Callable[[], None] = lambda: None

    def start(self, restarts: int = 0) -> "subprocess.Popen[bytes]":
        """Starts the process, apart from the terminal, whose Ctrl-C is for the starting process alone. It is told how
        often it was started again.

        Call it from a thread that stays: the kernel takes the end of that thread for the end of the process. Its
        `stdout` is closed as soon as all that it wrote is in the log.
        """
        self.log.touch()
        process = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=CHECKOUT if self.user is None else "/",
            env={**self.environment, "PULSEGATE_RESTARTS": str(restarts)},
            start_new_session=True,
            preexec_fn=_end_with_parent(self.orphan_signal),  # noqa: PLW1509 - it takes no lock
            **_identity(self.user),
        )
        threading.Thread(
            target=logs.keep, args=(process.stdout, self.log), name=f"log {self.name}", daemon=True
        ).start()
        return process


def _identity(user: str | None) -> dict[str, Any]:
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _end_with_parent(orphan_signal: signal.Signals) -> Callable[[], None] | None:
    """What a new process does before its program begins, so that it does not outlive the one that started it."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def end_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, orphan_signal)
        if os.getppid() != parent:
            os._exit(1)

    return end_with_parent


def probe_http(port: int, path: str) -> None:
    """Raises NotReady unless GET answers 200; the reason carries the start of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise NotReady(f"no answer on port {port}") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise NotReady(f"{path} on port {port} answered {response.status}: {body}")


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the port of 127.0.0.1 now."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
