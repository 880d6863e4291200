"""Memory and files of the suite's processes."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tests.suite_running import Suite

#: What a process may have more at the end: the clients keep up to a hundred connections, and caches fill.
_MORE_FILES = 128
_MORE_BYTES = 64 << 20
#: A Prometheus that was killed reads its log again, and gives back what that took when Go's collector has run, which it
#: does every two minutes where little is allocated.
_COLLECTED_SECONDS = 300.0
_LOOKS = 60


@dataclass(frozen=True)
class Used:
    """By one process."""

    bytes: int
    files: int


def used(suite: Suite) -> dict[str, Used]:
    """By each process that runs."""
    found = {}
    for name, process in suite.processes().items():
        folder = Path(f"/proc/{process['pid']}")
        try:
            resident_kb = (folder / "status").read_text().split("VmRSS:")[1].split()[0]
            found[name] = Used(int(resident_kb) << 10, len(list((folder / "fd").iterdir())))
        except (OSError, IndexError):
            continue  # it ended just now
    return found


def grown(before: dict[str, Used], after: dict[str, Used]) -> list[str]:
    """The processes that use clearly more than before."""
    return [
        f"{name}: {was} → {now}"
        for name, was in before.items()
        if (now := after.get(name))
        and (now.files > was.files + _MORE_FILES or now.bytes > 1.5 * was.bytes + _MORE_BYTES)
    ]


async def settled(suite: Suite, before: dict[str, Used]) -> dict[str, Used]:
    """What processes use once none has grown; or, where that takes too long, at last."""
    for _ in range(_LOOKS):
        if not grown(before, used(suite)):
            break
        await asyncio.sleep(_COLLECTED_SECONDS / _LOOKS)
    return used(suite)
