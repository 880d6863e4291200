"""Starts programs in order, keeps each running, stops them in the opposite order; writes down how they run."""

import asyncio
import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.local.programs import NotReady, Program
from deploy.local.secrets import write_private

#: Before the first, second, third, … restart in a row.
_BACKOFF_SECONDS = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)
#: A program that has run for so long starts again without delay.
_HEALTHY_SECONDS = 30.0
#: A program that dies so often before it has ever been ready will not become ready.
_MOST_EARLY_DEATHS = 3
#: For all programs together; what is left then is killed.
_STOP_SECONDS = 20.0
#: All signals within this time are one request to stop.
_ONE_REQUEST_SECONDS = 1.0
_POLL_SECONDS = 0.05
_LOGGED_SECONDS = 1.0
_LOG_TAIL_LINES = 15


class StartFailed(Exception):
    """A program did not become ready; the message says why, with the end of its log."""


class Supervised:
    """One program that is kept running from `start` to `stop`."""

    def __init__(self, program: Program, changed: Callable[[], None]) -> None:
        self.program = program
        self.restarts = 0
        self._death = ""
        self._changed = changed
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """None while it is down."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Returns when it is ready. Raises StartFailed when it is not in time, or dies again and again."""
        self._keeper = asyncio.create_task(self._keep_running(), name=self.program.name)
        deadline = time.monotonic() + self.program.ready_seconds
        while lack := await self._lack():
            if self.restarts >= _MOST_EARLY_DEATHS:
                raise StartFailed(f"{self.program.name} dies when started: {self._death}{self._log_tail()}")
            if time.monotonic() > deadline:
                late = f"{self.program.name} was not ready within {self.program.ready_seconds:.0f} s: {lack}"
                raise StartFailed(late + self._log_tail())
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self, deadline: float) -> None:
        """Asks it to end, kills it at the deadline (of `time.monotonic`)."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if (process := self._process) is None:
            return
        if process.poll() is None:
            process.send_signal(self.program.stop_signal)
        await _end(process, deadline)
        process.kill()
        process.wait()
        await _logged(process)
        self._process = None

    async def _lack(self) -> str:
        """What keeps it from being ready, or nothing."""
        if self._process is None:
            return f"it does not run: {self._death}" if self._death else "it does not run"
        try:
            await asyncio.to_thread(self.program.probe)
        except NotReady as lack:
            return str(lack)
        return ""

    async def _keep_running(self) -> None:
        in_a_row = 0
        while True:
            started = time.monotonic()
            try:
                await self._run_once()
            except Exception as error:  # noqa: BLE001 - whatever keeps it from running is told, and it is tried again
                self._death = str(error) or type(error).__name__
            if time.monotonic() - started > _HEALTHY_SECONDS:
                in_a_row = 0
            await asyncio.sleep(_BACKOFF_SECONDS[min(in_a_row, len(_BACKOFF_SECONDS) - 1)])
            in_a_row += 1
            self.restarts += 1

    async def _run_once(self) -> None:
        await asyncio.to_thread(self.program.clear_up)
        self._process = self.program.start(self.restarts)
        self._changed()
        await _end(self._process)
        await _logged(self._process)
        self._death = f"exit status {self._process.returncode}"
        self._process = None
        self._changed()

    def _log_tail(self) -> str:
        if not self.program.log.exists():
            return ""
        lines = self.program.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return f"\nthe end of {self.program.log}:\n  " + "\n  ".join(lines)


async def _end(process: "subprocess.Popen[bytes]", deadline: float = math.inf) -> None:
    """Returns when the process has ended, at the latest at the deadline."""
    while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - works on any loop and system
        await asyncio.sleep(_POLL_SECONDS)


async def _logged(process: "subprocess.Popen[bytes]") -> None:
    """Returns when all that an ended process wrote is in its log; soon, also where a child of it goes on writing."""
    deadline = time.monotonic() + _LOGGED_SECONDS
    while process.stdout and not process.stdout.closed and time.monotonic() < deadline:  # noqa: ASYNC110 - as above
        await asyncio.sleep(_POLL_SECONDS / 10)


class Supervisor:
    """Programs in stages: the programs of one stage start and stop together, the stages one after the other."""

    def __init__(self, run_json: Path, described: Mapping[str, Any]) -> None:
        """`described` is written to `run_json` together with the processes, at each change."""
        self._run_json = run_json
        self._described = described
        self._stages: list[list[Supervised]] = []

    async def start(self, programs: Sequence[Program]) -> None:
        """Starts one stage and waits until it is ready. Raises StartFailed of the first program that fails."""
        stage = [Supervised(program, self._write_down) for program in programs]
        self._stages.append(stage)
        starting = [asyncio.create_task(supervised.start()) for supervised in stage]
        try:
            for task in asyncio.as_completed(starting):
                await task
        finally:
            for task in starting:
                task.cancel()

    async def stop(self) -> None:
        """Stops the stages, the newest first; each has an equal share of the time."""
        began, count = time.monotonic(), len(self._stages)
        for number, stage in enumerate(reversed(self._stages), start=1):
            deadline = began + _STOP_SECONDS * number / count
            await asyncio.gather(*(supervised.stop(deadline) for supervised in stage))
        self._stages.clear()
        self._run_json.unlink(missing_ok=True)

    def _write_down(self) -> None:
        processes = [
            {
                "name": supervised.program.name,
                "pid": supervised.pid,
                "ports": dict(supervised.program.ports),
                "restarts": supervised.restarts,
            }
            for stage in self._stages
            for supervised in stage
        ]
        described = {**self._described, "pid": os.getpid(), "processes": processes}
        write_private(self._run_json, json.dumps(described, indent=2) + "\n")


def stop_requests() -> asyncio.Event:
    """Set by the first Ctrl-C or SIGTERM; a later one ends this process, and the kernel then ends its programs.

    One request may come as several signals, to the process, to its group and through `make`: that is no impatience.
    """
    requested = asyncio.Event()
    loop = asyncio.get_running_loop()
    patient_until = math.inf

    def request() -> None:
        nonlocal patient_until
        if loop.time() > patient_until:
            os._exit(130)
        if not requested.is_set():
            patient_until = loop.time() + _ONE_REQUEST_SECONDS
        requested.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, request)
    return requested
