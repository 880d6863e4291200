"""Blocks of free ports, as many as a stack may take, that no other test run on this machine is given at the same time.

Fixture `port_blocks`: a function that reserves a block until the end of the test and returns its `Ports`.
Fixture `lasting_port_blocks` (session): the same, until the end of the session.
"""

import fcntl
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from deploy.local.layout import Ports
from deploy.local.programs import port_is_free
from deploy.local.settings import PORT_COUNT

#: Below the ports that Linux gives to outgoing connections.
_BLOCKS = range(20000, 32000, PORT_COUNT)
#: How often this process had each. The least first: a client's library may remember that an address did not answer.
_times_had: Counter[int] = Counter()


@pytest.fixture
def port_blocks() -> Iterator[Callable[[], Ports]]:
    with ExitStack() as held:
        yield lambda: _reserve(held)


@pytest.fixture(scope="session")
def lasting_port_blocks() -> Iterator[Callable[[], Ports]]:
    with ExitStack() as held:
        yield lambda: _reserve(held)


def _reserve(held: ExitStack) -> Ports:
    locks = Path(tempfile.gettempdir()) / f"pulsegate-test-ports-{os.getuid()}"
    locks.mkdir(exist_ok=True)
    for first in sorted(random.sample(_BLOCKS, len(_BLOCKS)), key=_times_had.__getitem__):
        lock = (locks / str(first)).open("w")
        if _is_ours(lock) and all(port_is_free(first + offset) for offset in range(PORT_COUNT)):
            held.enter_context(lock)
            _times_had[first] += 1
            return Ports(first)
        lock.close()
    raise AssertionError("no block of free ports")


def _is_ours(lock: IO[str]) -> bool:
    """Holds the lock until the file is closed, at the latest when this process ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
