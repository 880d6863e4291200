"""Circuit breakers for async code, on pybreaker.

A breaker opens when at least half of the calls of the last ten seconds failed (of the last minute where those were too
few to judge by), refuses for `reset_seconds`, then lets one call try. pybreaker itself counts consecutive failures: the
rolling window is our own storage for it. Its decorator does not see coroutines: `guarded` uses `calling()`.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pybreaker

from chassis import logs, metrics
from chassis.errors import WAITING_FOR, PulsegateError, Unavailable

log = logs.get(__name__)

_STATE_VALUES = {pybreaker.STATE_CLOSED: 0.0, pybreaker.STATE_HALF_OPEN: 0.5, pybreaker.STATE_OPEN: 1.0}

#: How many times the window calls are remembered while there are too few of them.
_LONGEST_WINDOWS = 6

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
        self._answered = False

    def record(self, *, failed: bool) -> None:
        """Adds the outcome of one call."""
        now = self._now()
        self._answered = not failed
        began, calls, failures = now, 0, 0
        if self._slices and now - self._slices[-1][0] < self._window_seconds / 10:
            began, calls, failures = self._slices.pop()
        self._slices.append((began, calls + 1, failures + failed))
        self._forget_old(now)

    def _forget_old(self, now: float) -> None:
        """Drops what is older than the window. An upstream that hangs answers few calls in ten seconds: where there are
        too few to judge by, older ones stay, for a while."""
        calls = sum(calls for _, calls, _ in self._slices)
        while self._slices:
            began, oldest_calls, _ = self._slices[0]
            age = now - began
            spared = calls - oldest_calls < self._least_calls and age <= _LONGEST_WINDOWS * self._window_seconds
            if age <= self._window_seconds or spared:
                return
            calls -= oldest_calls
            self._slices.popleft()

    @property
    def counter(self) -> int:
        """1 where the window says that a closed breaker must open, else 0: the breaker is made with `fail_max=1`.

        Calls that began before it opened, and fail afterwards, must not open it again.
        """
        if self.state != pybreaker.STATE_CLOSED:
            return 0
        self._forget_old(self._now())
        calls = sum(count for _, count, _ in self._slices)
        failed = sum(count for _, _, count in self._slices)
        return int(calls >= self._least_calls and failed * 2 >= calls)

    @property
    def success_counter(self) -> int:
        """1 once the trial of a half-open breaker was answered. pybreaker takes a cancelled call for a success."""
        return int(self._answered)

    def reset_success_counter(self) -> None:
        self._answered = False

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
        least_calls: int = 5,
        is_fault: Callable[[BaseException], bool] | None = None,
    ) -> None:
        self.upstream = upstream
        self._window = RollingWindow(window_seconds=window_seconds, least_calls=least_calls)
        self._is_fault = is_fault or upstream_fault
        self._reset_seconds = reset_seconds
        self._opened_at = 0.0
        self._trying = False
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
        """Raises Unavailable at once while open, or half-open and being tried; else watches what the block raises."""
        if self._trying:
            raise self._resting()
        try:
            with self._breaker.calling(), self._recording():
                yield
        except pybreaker.CircuitBreakerError as error:
            raise self._resting() from error

    @contextmanager
    def _recording(self) -> Iterator[None]:
        trial = self.state == pybreaker.STATE_HALF_OPEN
        self._trying = self._trying or trial
        try:
            yield
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._record(failed=self._is_fault(error), trial=trial)
            raise
        else:
            self._record(failed=False, trial=trial)
        finally:
            self._trying = self._trying and not trial

    def _record(self, *, failed: bool, trial: bool) -> None:
        # What began before the breaker opened says nothing about the upstream as it is now.
        if trial or self.state == pybreaker.STATE_CLOSED:
            self._window.record(failed=failed)

    def _resting(self) -> Unavailable:
        return Unavailable(
            f"{self.upstream} is failing and is given a rest.", retry_after_seconds=self._seconds_to_reset()
        )

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
    """Whether an error speaks against the upstream: not a cancellation, not the caller's own mistake, and not what the
    upstream, itself well and quick to say so, cannot do for want of something else (`Unavailable.waiting_for`)."""
    if isinstance(error, PulsegateError):
        return error.kind in _UPSTREAM_FAULTS and WAITING_FOR not in (error.details or {})
    return isinstance(error, Exception)
