"""Where the Python processes spend their time under load: py-spy looks at each while wrk sends as fast as it can."""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.phases import send
from bench.report import table
from bench.suite import Suite
from bench.workload import Workload

_PROFILED = ("gateway", "receiver", "aggregator")
_SAMPLES_A_SECOND = 100
_LINES = 30
#: The load outlasts the looking, which takes a moment to begin.
_MARGIN_SECONDS = 2.0


#: Beginnings of the functions in which a thread waits.
_WAITING = ("epoll_wait ", "epoll_pwait ", "poll ", "pthread_cond_", "sem_wait", "futex")


class ProfileFailed(Exception):
    """py-spy could not look at a process."""


async def profile(suite: Suite, folder: Path, profiles: Path, workload: Workload, *, seconds: float) -> dict[str, Path]:
    """The collapsed stacks of each process, as flame graphs are drawn from. Raises ProfileFailed, LoadFailed."""
    files = {name: profiles / f"{name}.collapsed" for name in _PROFILED}
    await asyncio.gather(
        send(suite, folder, workload, seconds=seconds + _MARGIN_SECONDS),
        *(_record(suite.pids()[name], file, seconds) for name, file in files.items()),
    )
    return files


async def _record(pid: int, file: Path, seconds: float) -> None:
    process = await asyncio.create_subprocess_exec(
        *(
            Path(sys.executable).with_name("py-spy"),
            "record",
            "--pid",
            str(pid),
            "--format",
            "raw",
            "--function",
            "--native",
        ),
        *("--rate", str(_SAMPLES_A_SECOND), "--duration", str(round(seconds)), "--output", str(file)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode != 0:
        raise ProfileFailed(said.decode().strip())


def costliest(stacks: Sequence[str]) -> str:
    """A table of the functions of collapsed stacks (`outer;inner count`), by the time in themselves.

    Time in which nothing was done is left out.
    """
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for stack in stacks:
        frames, _, samples = stack.rpartition(" ")
        functions = frames.split(";")
        if functions[-1].startswith(_WAITING):
            continue
        own[functions[-1]] += int(samples)
        within.update(dict.fromkeys(functions, int(samples)))
    total = own.total()
    rows = [[name, f"{count / total:.1%}", f"{within[name] / total:.1%}"] for name, count in own.most_common(_LINES)]
    return table(["function", "itself", "with what it calls"], rows)
