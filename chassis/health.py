"""Health of a process: live, ready and started.

Liveness never looks at a dependency. Readiness does, with verdicts that a background task keeps fresh, and only *hard*
dependencies make it unready; a soft one that is away makes the process degraded.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from chassis import logs, metrics
from chassis.tasks import in_background

#: Returns when the dependency answers; raises otherwise. The exception's text is shown in readiness.
Probe = Callable[[], Awaitable[None]]

_INTERVAL_SECONDS = 1.0
_TIMEOUT_SECONDS = 2.0

log = logs.get(__name__)


@dataclass
class Check:
    """A dependency and what was last seen of it."""

    name: str
    hard: bool
    probe: Probe
    #: The state of the circuit breaker towards it; None: there is none.
    breaker: Callable[[], str] | None = None
    up: bool = False
    latency_ms: float = 0.0
    #: Why it is down, without secrets.
    reason: str = "not checked yet"


@dataclass
class Health:
    """The checks of one process. `stopping` makes it unready at once."""

    checks: list[Check] = field(default_factory=list)
    started: bool = False
    stopping: bool = False

    def add(self, name: str, probe: Probe, *, hard: bool, breaker: Callable[[], str] | None = None) -> None:
        self.checks.append(Check(name, hard, probe, breaker))

    @property
    def status(self) -> str:
        """`ready`, `degraded` (a soft dependency is away) or `unready`."""
        if self.stopping or not self.started or any(check.hard and not check.up for check in self.checks):
            return "unready"
        return "ready" if all(check.up for check in self.checks) else "degraded"

    def report(self, *, with_reasons: bool = True) -> dict[str, Any]:
        """The body of `/health/ready`. Reasons may name internal addresses."""
        checks = {check.name: _render(check, with_reason=with_reasons) for check in self.checks}
        return {"status": self.status, "checks": checks}

    async def refresh(self) -> None:
        """Asks every dependency once, side by side."""
        await asyncio.gather(*(_ask(check) for check in self.checks))
        self.started = self.started or all(check.up for check in self.checks if check.hard)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Keeps the verdicts fresh while open."""

        async def watch() -> None:
            while True:
                await self.refresh()
                await asyncio.sleep(_INTERVAL_SECONDS)

        async with in_background(watch()):
            yield


async def _ask(check: Check) -> None:
    began = time.monotonic()
    was_up, was_reason = check.up, check.reason
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            await check.probe()
        check.up, check.reason = True, ""
    except TimeoutError:
        check.up, check.reason = False, f"no answer in {_TIMEOUT_SECONDS:g} s"
    except Exception as error:  # noqa: BLE001 - whatever a driver raises means that the dependency is away
        check.up, check.reason = False, logs.redact_text(str(error) or type(error).__name__)[:200]
    check.latency_ms = (time.monotonic() - began) * 1000
    metrics.DEPENDENCY_UP.labels(check.name, str(check.hard).lower()).set(check.up)
    if (check.up, check.reason) != (was_up, was_reason):
        log.info("dependency changed", dependency=check.name, up=check.up, reason=check.reason)


def _render(check: Check, *, with_reason: bool) -> dict[str, Any]:
    rendered: dict[str, Any] = {
        "status": "up" if check.up else "down",
        "hard": check.hard,
        "latencyMs": round(check.latency_ms, 1),
    }
    if check.breaker is not None:
        rendered["breaker"] = check.breaker()
    if with_reason and not check.up:
        rendered["reason"] = check.reason
    return rendered
