"""Circuit breakers for async code, on pybreaker.

A breaker opens when at least half of the calls of the last ten seconds failed (and there were enough of them), refuses
for `reset_seconds`, then lets one call try. pybreaker itself counts consecutive failures: the rolling window is our own
storage for it. Its decorator does not see coroutines: `guarded` uses `calling()`.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pybreaker

from chassis import logs, metrics
from chassis.errors import STATUSES, PulsegateError, Unavailable

log = logs.get(__name__)

_STATE_VALUES = {pybreaker.STATE_CLOSED: 0.0, pybreaker.STATE_HALF_OPEN: 0.5, pybreaker.STATE_OPEN: 1.0}

#: Kinds of errors that say something about the upstream rather than about the call.
_UPSTREAM_FAULTS = frozenset({"internal", "unavailable", "deadline_exceeded"})


class RollingWindow(pybreaker.CircuitMemoryStorage):
    """Counts a failure only once failures are at least half of the window's calls, and these are enough."""

    def __init__(self, *, window_seconds: float, least_calls: int, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(pybreaker.STATE_CLOSED)
        self._window_seconds = window_seconds
        self._least_calls = least_calls
        self._now = now
        #: (when it began, calls, failures) of each tenth of the window, so that a busy upstream costs no more memory.
        self._slices: deque[tuple[float, int, int]] = deque()

    def record(self, *, failed: bool) -> None:
        """Adds the outcome of one call."""
        now = self._now()
        began, calls, failures = now, 0, 0
        if self._slices and now - self._slices[-1][0] < self._window_seconds / 10:
            began, calls, failures = self._slices.pop()
        self._slices.append((began, calls + 1, failures + failed))
        while self._slices[0][0] < now - self._window_seconds:
            self._slices.popleft()

    @property
    def counter(self) -> int:
        """1 while the window says "open", else 0: the breaker is made with `fail_max=1`."""
        oldest = self._now() - self._window_seconds
        recent = [(calls, failures) for began, calls, failures in self._slices if began >= oldest]
        calls = sum(count for count, _ in recent)
        failed = sum(count for _, count in recent)
        return int(calls >= self._least_calls and failed * 2 >= calls)

    def forget(self) -> None:
        """Starts a new window, as after a recovery."""
        self._slices.clear()


class Breaker:
    """Guards calls to one upstream."""

    def __init__(
        self,
        upstream: str,
        *,
        reset_seconds: float = 30.0,
        window_seconds: float = 10.0,
        least_calls: int = 10,
        is_fault: Callable[[BaseException], bool] | None = None,
    ) -> None:
        self.upstream = upstream
        self._window = RollingWindow(window_seconds=window_seconds, least_calls=least_calls)
        self._is_fault = is_fault or upstream_fault
        self._reset_seconds = reset_seconds
        self._opened_at = 0.0
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=1,
            reset_timeout=reset_seconds,
            exclude=[lambda error: not self._is_fault(error)],
            listeners=[_Announcer(self)],
            state_storage=self._window,
            name=upstream,
            throw_new_error_on_trip=False,
        )
        metrics.BREAKER_OPEN.labels(upstream).set(0)

    @property
    def is_open(self) -> bool:
        return self._window.state == pybreaker.STATE_OPEN

    @property
    def state(self) -> str:
        """`closed`, `half-open` or `open`."""
        return str(self._window.state)

    @asynccontextmanager
    async def guarded(self) -> AsyncIterator[None]:
        """Raises Unavailable at once while open; else watches what the block raises."""
        try:
            with self._breaker.calling():
                try:
                    yield
                except asyncio.CancelledError:
                    raise
                except BaseException as error:
                    self._window.record(failed=self._is_fault(error))
                    raise
                else:
                    self._window.record(failed=False)
        except pybreaker.CircuitBreakerError as error:
            raise Unavailable(
                f"{self.upstream} is failing and is given a rest.",
                retry_after_seconds=self._seconds_to_reset(),
            ) from error

    def try_again(self) -> None:
        """Lets one call try before the time is up, because something says that the upstream is back."""
        if self.is_open:
            self._breaker.half_open()

    def _seconds_to_reset(self) -> float:
        return max(1.0, self._opened_at + self._reset_seconds - time.monotonic())

    def announce(self, state: str) -> None:
        """Called at each change of state."""
        metrics.BREAKER_OPEN.labels(self.upstream).set(_STATE_VALUES.get(state, 0.0))
        log.warning("breaker changed", upstream=self.upstream, state=state)
        if state == pybreaker.STATE_OPEN:
            self._opened_at = time.monotonic()
        else:
            self._window.forget()


class _Announcer(pybreaker.CircuitBreakerListener):
    def __init__(self, breaker: Breaker) -> None:
        self._owner = breaker

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,  # noqa: ARG002 - the listener's signature
        old_state: pybreaker.CircuitBreakerState | None,  # noqa: ARG002
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        self._owner.announce(new_state.name)


def upstream_fault(error: BaseException) -> bool:
    """Whether an error speaks against the upstream: not a cancellation, not the caller's own mistake."""
    if isinstance(error, PulsegateError):
        return error.kind in _UPSTREAM_FAULTS and error.kind in STATUSES
    return isinstance(error, Exception)
