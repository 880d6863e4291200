"""Continuous profiles: which functions take processor time, sent to Pyroscope where its address is set.

What is sent are names of functions and files with counts, and no data. A sampler beside the program looks a hundred
times a second at the thread that holds the interpreter.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pushing(service: str, address: str | None) -> Iterator[None]:
    """Sends profiles every ten seconds while open, and the last one at the end. Does nothing where the address is None.

    A server that is away hurts nobody. Call it once in a process.
    """
    if address is None:
        yield
        return
    import pyroscope  # 15 MB of machine code, which processes without an address shall not load

    pyroscope.configure(application_name=f"pulsegate-{service}", server_address=address)
    try:
        yield
    finally:
        pyroscope.shutdown()
