"""Processes that the bench runs: on free ports, ready before they are used, ended afterwards."""

import asyncio
import random
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deploy.local.layout import Ports
from deploy.local.programs import NotReady, Program, port_is_free
from deploy.local.settings import PORT_COUNT
from deploy.local.supervisor import StartFailed

_STOP_SECONDS = 60.0
#: Characters of a log that say why something did not start.
_LOG_TAIL = 2000
#: Below the ports that Linux gives to outgoing connections.
_PORT_BLOCKS = range(20000, 32000, PORT_COUNT)


def free_ports() -> Ports:
    """Sixteen free ports in a row."""
    for first in random.sample(_PORT_BLOCKS, len(_PORT_BLOCKS)):
        if all(port_is_free(first + offset) for offset in range(PORT_COUNT)):
            return Ports(first)
    raise OSError("no free ports in a row")


@asynccontextmanager
async def running(program: Program) -> AsyncIterator[int]:
    """The process id of the program, which is ready inside the block and has ended after it. Raises StartFailed."""
    process = program.start()
    try:
        await _until_ready(program, process)
        yield process.pid
    finally:
        process.send_signal(program.stop_signal)
        await asyncio.to_thread(_wait_or_kill, process)


async def _until_ready(program: Program, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + program.ready_seconds
    while True:
        try:
            await asyncio.to_thread(program.probe)
        except NotReady as lack:
            if process.poll() is not None or time.monotonic() > deadline:
                log = program.log.read_text(errors="replace")[-_LOG_TAIL:]
                raise StartFailed(f"{program.name} is not ready: {lack}\n{log}") from lack
            await asyncio.sleep(0.1)
        else:
            return


def _wait_or_kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
