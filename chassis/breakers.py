"""Circuit breakers for async code, on pybreaker.

A breaker opens when at least half of the calls of the last ten seconds failed (of the last minute where those were too
few to judge by), or when several in a row got no answer in time, as from an upstream that hangs: health checks that got
none count among these, so that few callers wait in vain. It refuses for `reset_seconds`, then lets one call try.
pybreaker keeps the state and tells of changes; it counts consecutive failures and sees no coroutines, so the rolling
window and the guard of a call are our own.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import pybreaker

from chassis import logs, metrics
from chassis.errors import WAITING_FOR, AnswerTooLarge, DeadlineExceeded, PulsegateError, Unavailable

log = logs.get(__name__)

_STATE_VALUES = {pybreaker.STATE_CLOSED: 0.0, pybreaker.STATE_HALF_OPEN: 0.5, pybreaker.STATE_OPEN: 1.0}

#: How many times the window calls are remembered while there are too few of them.
_LONGEST_WINDOWS = 6

#: Kinds of errors that say something about the upstream rather than about the call.
_UPSTREAM_FAULTS = frozenset({"internal", "unavailable", "deadline_exceeded"})


class NotAsked(Unavailable):
    """The upstream was kept from a call: nothing was done, and to try again at once is useless."""


@dataclass(slots=True)
class _Slice:
    """The calls of a tenth of the window."""

    began: float
    calls: int = 0
    failures: int = 0


class RollingWindow:
    """The outcomes of the latest calls."""

    def __init__(self, *, window_seconds: float, least_calls: int, now: Callable[[], float] = time.monotonic) -> None:
        self._window_seconds = window_seconds
        self._least_calls = least_calls
        self._now = now
        #: The oldest first, so that a busy upstream costs no more memory.
        self._slices: deque[_Slice] = deque()

    def record(self, *, failed: bool) -> None:
        """Adds the outcome of one call."""
        now = self._now()
        if not self._slices or now - self._slices[-1].began >= self._window_seconds / 10:
            self._slices.append(_Slice(now))
            self._forget_old(now)
        newest = self._slices[-1]
        newest.calls += 1
        newest.failures += failed

    def _forget_old(self, now: float) -> None:
        """Drops what is older than the window. An upstream that hangs answers few calls in ten seconds: where there are
        too few to judge by, older ones stay, for a while."""
        calls = sum(part.calls for part in self._slices)
        while self._slices:
            oldest = self._slices[0]
            age = now - oldest.began
            spared = calls - oldest.calls < self._least_calls and age <= _LONGEST_WINDOWS * self._window_seconds
            if age <= self._window_seconds or spared:
                return
            calls -= oldest.calls
            self._slices.popleft()

    @property
    def failing(self) -> bool:
        """Whether at least half of the calls failed, and these are enough to judge by."""
        self._forget_old(self._now())
        calls = sum(part.calls for part in self._slices)
        failures = sum(part.failures for part in self._slices)
        return calls >= self._least_calls and failures * 2 >= calls

    def forget(self) -> None:
        """Starts a new window, as after a recovery."""
        self._slices.clear()


class Breaker:
    """Guards calls to one upstream.

    A call that is given up for its time before `patience_seconds` says nothing about the upstream: its caller had
    little time left. `most_silences` calls or health checks in a row without an answer in time open it; None: they
    count as other failures do.
    """

    def __init__(
        self,
        upstream: str,
        *,
        reset_seconds: float = 30.0,
        window_seconds: float = 10.0,
        least_calls: int = 5,
        patience_seconds: float = 0.0,
        most_silences: int | None = None,
        is_fault: Callable[[BaseException], bool] | None = None,
    ) -> None:
        self.upstream = upstream
        self.is_fault = is_fault or upstream_fault
        self.patience_seconds = patience_seconds
        self._most_silences = most_silences
        #: Calls without an answer in time since the last call that got one; health checks likewise.
        self._silent_calls = self._silent_checks = 0
        #: Whether the last health check got no answer, and whether it was such a one that opened it.
        self._check_silent = self._opened_by_check = False
        self._window = RollingWindow(window_seconds=window_seconds, least_calls=least_calls)
        self._reset_seconds = reset_seconds
        self._opened_at = 0.0
        self._trying = False
        self._breaker = pybreaker.CircuitBreaker(name=upstream, listeners=[_Announcer(self)])
        #: `closed`, `half-open` or `open`.
        self.state: str = self._breaker.current_state
        metrics.BREAKER_OPEN.labels(upstream).set(0)

    @property
    def is_open(self) -> bool:
        return self.state == pybreaker.STATE_OPEN

    def guarded(self) -> "Guard":
        """A block that raises NotAsked at once while open, or half-open and being tried; else sees what is raised.

        It awaits nothing itself: `with breaker.guarded(): await …`.
        """
        return Guard(self)

    def admit(self) -> bool:
        """Whether a call that begins now is the trial of a half-open breaker. Raises NotAsked where none may."""
        if self.state == pybreaker.STATE_CLOSED:
            return False
        self.check()
        if self.is_open:
            self._breaker.half_open()
        self._trying = True
        return True

    def check(self) -> None:
        """Raises NotAsked where no call may begin now: for one that would have to wait first."""
        if self._trying or (self.is_open and time.monotonic() < self._opened_at + self._reset_seconds):
            raise NotAsked(
                "What this needs is failing and is given a rest; nothing was done.",
                retry_after_seconds=self._seconds_to_reset(),
            )

    def record(self, *, failed: bool | None, trial: bool, silent: bool = False) -> None:
        """What came of an admitted call; None where that says nothing. `silent`: it failed for want of an answer."""
        self._trying = self._trying and not trial
        if failed is None:
            return
        if self.state == pybreaker.STATE_CLOSED:
            self._window.record(failed=failed)
            if silent:
                self._silent_calls += 1
            else:
                self._silent_calls = self._silent_checks = 0
            if failed and (self._window.failing or self._is_silent):
                self._breaker.open()
        elif trial and failed:
            self._breaker.open()
        elif trial:
            self._breaker.close()
        # What began before the breaker opened says nothing about the upstream as it is now.

    @property
    def _is_silent(self) -> bool:
        return self._most_silences is not None and self._silent_calls + self._silent_checks >= self._most_silences

    def checked(self, *, answered: bool) -> None:
        """What came of a health check. An answer says that a silent upstream is back, and nothing more: it may come
        while calls fail. Where nobody calls, it ends what only a call would end."""
        if answered and self._check_silent:
            self.try_again()
        elif answered:
            self._end_unasked()
        self._check_silent = not answered
        self._silent_checks = 0 if answered else self._silent_checks + 1
        if self._is_silent and not answered and self.state == pybreaker.STATE_CLOSED:
            self._breaker.open()
            self._opened_by_check = True

    def _end_unasked(self) -> None:
        """Half-open once the time is up, as for a call; closed when it has passed twice without any."""
        rested_seconds = time.monotonic() - self._opened_at
        if self.is_open and rested_seconds >= self._reset_seconds:
            self._breaker.half_open()
        elif self.state == pybreaker.STATE_HALF_OPEN and not self._trying and rested_seconds >= 2 * self._reset_seconds:
            self._breaker.close()

    def try_again(self) -> None:
        """Lets one call try before the time is up, because something says that the upstream is back.

        Where no call failed, but health checks alone, there is nothing to try.
        """
        if self.is_open and self._opened_by_check:
            self._breaker.close()
        elif self.is_open:
            self._breaker.half_open()

    def _seconds_to_reset(self) -> float:
        return max(1.0, self._opened_at + self._reset_seconds - time.monotonic())

    def announce(self, state: str) -> None:
        """Called at each change of state."""
        self.state = state
        metrics.BREAKER_OPEN.labels(self.upstream).set(_STATE_VALUES.get(state, 0.0))
        log.warning("breaker changed", upstream=self.upstream, state=state)
        if state == pybreaker.STATE_OPEN:
            self._opened_at = time.monotonic()
        else:
            self._window.forget()
            self._silent_calls = self._silent_checks = 0
            self._opened_by_check = False


class Guard:
    """One call; see `Breaker.guarded`."""

    __slots__ = ("_began", "_breaker", "_trial")

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._trial = False
        self._began = 0.0

    def __enter__(self) -> None:
        self._trial = self._breaker.admit()
        self._began = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._breaker.record(failed=False, trial=self._trial)
            return
        late = isinstance(error, DeadlineExceeded | TimeoutError)
        hurried = late and time.monotonic() - self._began < self._breaker.patience_seconds
        says_nothing = hurried or isinstance(error, asyncio.CancelledError)
        failed = None if says_nothing else self._breaker.is_fault(error)
        self._breaker.record(failed=failed, trial=self._trial, silent=late and bool(failed))


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
    """Whether an error speaks against the upstream: not a cancellation, not the caller's own mistake, not an answer
    that is too large, and not what the upstream, itself well and quick to say so, cannot do for want of something else
    (`WAITING_FOR`)."""
    if isinstance(error, PulsegateError):
        says_nothing = error.code == AnswerTooLarge.code or WAITING_FOR in (error.details or {})
        return error.kind in _UPSTREAM_FAULTS and not says_nothing
    return isinstance(error, Exception)
