"""Work in steps (`services.ingest.turns`), for tests in which nobody else waits."""

from typing import TypeVar

from services.ingest.turns import Steps

T = TypeVar("T")


def at_once(steps: Steps[T]) -> T:
    """What the steps come to, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: T = done.value
            return found
