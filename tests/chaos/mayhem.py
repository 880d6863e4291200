"""Carries a plan out on a running suite."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from deploy.local.progress import say
from tests.chaos.plan import ChaosSettings, Disruption, Kind, disruptions
from tests.suite_running import Suite
from tests.waiting import wait_for

#: A process that comes back while its servers do too takes its time.
_RESTART_SECONDS = 60.0
#: What a supervisor that is starting a process needs until run.json names it.
_NAMED_SECONDS = 20.0


class Mayhem:
    """Disruptions one after the other, counted."""

    def __init__(self, suite: Suite, settings: ChaosSettings, afterwards: Callable[[], Awaitable[None]]) -> None:
        """`afterwards` is awaited when a disruption is over and what it struck is back."""
        self._suite = suite
        self._settings = settings
        self._afterwards = afterwards
        self.kills: Counter[str] = Counter()
        self.pauses: Counter[str] = Counter()
        self.rolled: Counter[str] = Counter()

    async def run(self) -> None:
        """Until the plan's kills or its time are used up."""
        began = time.monotonic()
        for disruption in disruptions(self._settings.seed):
            elapsed = time.monotonic() - began
            over = self.kills.total() + disruption.kills > self._settings.most_kills
            if over or elapsed + disruption.after_seconds > self._settings.most_seconds:
                return
            await asyncio.sleep(disruption.after_seconds)
            paused = f" for {disruption.pause_seconds} s" if disruption.kind is Kind.PAUSE else ""
            say(f"  {elapsed:6.1f} s  {disruption.kind} {', '.join(disruption.targets)}{paused}")
            await asyncio.to_thread(self._carry_out, disruption)
            await self._afterwards()

    def _carry_out(self, disruption: Disruption) -> None:
        match disruption.kind:
            case Kind.KILL:
                self._kill(disruption.targets)
            case Kind.KILL_ALL:
                self.kills["supervisor"] += 1
                self._suite.kill_supervisor()
                self._suite.start()
            case Kind.ROLL:
                for name in disruption.targets:
                    self._end(name)
            case Kind.PAUSE:
                for name in disruption.targets:
                    self._pause(name, disruption.pause_seconds)

    def _kill(self, names: tuple[str, ...]) -> None:
        killed = [(name, self._signal(name, signal.SIGKILL)) for name in names]
        for name, pid in killed:
            self.kills[name] += 1
            self._suite.wait_restarted(name, pid, within_seconds=_RESTART_SECONDS)

    def _end(self, name: str) -> None:
        pid = self._signal(name, signal.SIGTERM)
        self.rolled[name] += 1
        self._suite.wait_restarted(name, pid, within_seconds=_RESTART_SECONDS)

    def _pause(self, name: str, seconds: float) -> None:
        self._named(name)
        self.pauses[name] += 1
        with self._suite.paused(name):
            time.sleep(seconds)

    def _signal(self, name: str, number: signal.Signals) -> int:
        """Sends it to a process, which may just have struck a failpoint; returns the process id."""
        pid = self._named(name)
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return self._signal(name, number)
        return pid

    def _named(self, name: str) -> int:
        def pid() -> int | None:
            process = self._suite.processes().get(name)
            return int(process["pid"]) if process and Path(f"/proc/{process['pid']}").exists() else None

        return wait_for(pid, within_seconds=_NAMED_SECONDS, what=f"{name} runs") or 0


def failpoints_hit(suite: Suite) -> Counter[str]:
    """How often each failpoint struck, as the logs of the suite tell."""
    hit: Counter[str] = Counter()
    for path in sorted((suite.data / "logs").glob("*.log*")):
        for line in path.read_text(errors="replace").splitlines():
            if '"event": "failpoint"' in line:
                told = json.loads(line)
                hit[f"{told['point']}:{told['action']}"] += 1
    return hit
