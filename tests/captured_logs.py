"""What code under test logs, whatever has configured logs in this process before."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from unittest.mock import patch

import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

from chassis import logs


@contextmanager
def logged_by(module: ModuleType) -> Iterator[list[EventDict]]:
    """The lines of a module while open. Its own logger may have kept the configuration of an earlier test."""
    before = structlog.get_config()
    structlog.reset_defaults()
    try:
        with patch.object(module, "log", logs.get(module.__name__)), capture_logs() as said:
            yield said
    finally:
        structlog.configure(**before)
