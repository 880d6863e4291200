"""The Pulsegate runtime: what every generated Python client builds on. Standard library only, Python 3.8 or later.

A metric goes one way:

    Client.record ─→ Intake ─→ Gathering ─→ Sealer ─→ OfflineQueue ─→ Sender ─→ Connection ─→ settled, and counted
    any thread                 folds        numbers   disk or         retries   HTTP          in Client.stats
                                                      memory

record() touches memory only. One thread *seals*: it numbers what has been gathered, fixes its bytes and writes them to
the queue before anything is sent. Another *sends* each batch, byte for byte the same, until the server has settled it.
The server knows a batch by its producer and sequence, so that a retry is never counted twice.

Nothing that measures raises into the host application or makes it wait; what cannot be delivered is counted, with a
reason. Only flush() and close() wait, for their timeout at most.
"""

from __future__ import annotations

from .accounts import Stats
from .client import Client

__all__ = ["Client", "Stats"]
