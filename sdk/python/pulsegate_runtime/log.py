"""What the host application's log is told: little, and never the key."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Dict

_WARN_EVERY_SECONDS = 60.0

_warning_due: Dict[str, float] = {}

logger = logging.getLogger("pulsegate")


def warn(topic: str, message: str, *values: object) -> None:
    """Log a warning, at most one a minute on each topic; the others as debug messages. Never raises."""
    now = time.monotonic()
    due = now >= _warning_due.get(topic, now)
    if due:
        _warning_due[topic] = now + _WARN_EVERY_SECONDS
    with contextlib.suppress(Exception):  # a handler of the host application that raises must not end our threads
        logger.log(logging.WARNING if due else logging.DEBUG, message, *values)
