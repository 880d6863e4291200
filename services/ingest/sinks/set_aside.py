"""Which series a sink refuses, and until when they are not sent to it again.

What is refused costs many requests, and all that waits behind it comes late.
"""

from typing import NamedTuple

import numpy as np

from chassis.clock import Clock
from services.ingest.columns import Mask, Rows
from services.ingest.samples import Samples

_FIRST_PAUSE_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 600.0


class _Pause(NamedTuple):
    #: On the monotonic clock.
    until: float
    seconds: float


class SetAside:
    """The series of one lane that a sink refuses, by row: each for 1, 2, 4 … 10 minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: At most one for each live series: `forget` is told of those that end.
        self._pauses: dict[int, _Pause] = {}

    def put(self, rows: Rows) -> None:
        """The sink has refused these, again or for the first time."""
        now = self._clock.monotonic()
        for row in rows.tolist():
            last = self._pauses.get(row, _Pause(now, _FIRST_PAUSE_SECONDS / 2))
            if last.until <= now:
                seconds = min(2 * last.seconds, _LONGEST_PAUSE_SECONDS)
                self._pauses[row] = _Pause(now + seconds, seconds)

    def forget(self, rows: Rows) -> None:
        """The sink has taken these, or they have ended."""
        if self._pauses:
            for row in self._pauses.keys() & set(rows.tolist()):
                del self._pauses[row]

    def of(self, samples: Samples) -> tuple[Mask, Mask]:
        """Which samples are not to be sent, and which are to be tried again: an end is, before it is too late."""
        now = self._clock.monotonic()
        known = np.isin(samples.rows, np.fromiter(self._pauses, np.intp))
        pausing = [row for row, pause in self._pauses.items() if pause.until > now]
        unsent = np.isin(samples.rows, np.array(pausing, np.intp)) & ~samples.stale
        return unsent, known & ~unsent
