"""Time, as something that can be handed in."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time, monotonic time and waiting."""

    def now_ms(self) -> int:
        """Wall time, Unix milliseconds."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits; cancellable."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def from_unix_ms(unix_ms: int) -> datetime:
    """The moment as an aware datetime in UTC."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC)


def to_unix_ms(moment: datetime) -> int:
    """Unix milliseconds, rounded down."""
    return int(moment.timestamp() * 1000)


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, such as `2026-01-31T08:15:30.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
