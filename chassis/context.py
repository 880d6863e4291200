"""What travels with one request through a service and on to the next: set at the edge, read anywhere."""

import re
import time
from contextvars import ContextVar

from chassis.ids import uuid7_text

CORRELATION_ID: ContextVar[str] = ContextVar("correlation_id", default="")
#: The signed principal as it came, to be passed on to the next service.
PRINCIPAL_TOKEN: ContextVar[str] = ContextVar("principal_token", default="")
#: When the caller stops waiting, on `time.monotonic()`'s scale; None: never.
DEADLINE: ContextVar[float | None] = ContextVar("deadline", default=None)

#: In which a refusal reaches the caller: who hears nothing takes the service for broken.
_SECONDS_TO_ANSWER = 0.5

_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,128}")


def correlation_id_or_new(offered: str | None) -> str:
    """The caller's correlation id where it is well-formed, else a new one."""
    return offered if offered and _WELL_FORMED.fullmatch(offered) else uuid7_text()


def remaining_seconds(default: float) -> float:
    """Seconds a call made now may take: `default`, or less where the caller's own deadline comes sooner."""
    deadline = DEADLINE.get()
    return default if deadline is None else min(default, deadline - time.monotonic())


def waiting_seconds(longest: float) -> float:
    """Seconds to wait for what may not come: `longest`, or less, so that the caller can still be told so."""
    return remaining_seconds(longest + _SECONDS_TO_ANSWER) - _SECONDS_TO_ANSWER
