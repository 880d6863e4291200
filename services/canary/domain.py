"""What the canary has sent, and what must therefore be seen. Pure."""

from collections import deque
from dataclasses import dataclass

import msgspec


class Book(msgspec.Struct, kw_only=True, frozen=True):
    """What was sent in one run, as it is kept."""

    #: Producer of all batches and label of the series: a UUID.
    run: str
    #: Units that were accepted.
    accepted: int = 0
    #: Sequence number of the newest batch.
    sequence: int = 0
    #: Units of a batch that was sent and not accepted yet: counted or not, it is sent again until that is known.
    pending: int = 0

    def begun(self, units: int) -> "Book":
        """With the next batch, before it is sent."""
        return msgspec.structs.replace(self, sequence=self.sequence + 1, pending=units)

    def settled(self) -> "Book":
        """The pending batch was accepted."""
        return msgspec.structs.replace(self, accepted=self.accepted + self.pending, pending=0)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a comparison says, in units."""

    lost: int
    double: int
    #: How long each acceptance took that was seen for the first time, in seconds.
    visible_seconds: tuple[float, ...]


class Comparison:
    """Holds what is seen against what was accepted, and when."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        #: Totals after each acceptance that was not seen yet, with its moment.
        self._awaited: deque[tuple[int, float]] = deque()

    def accepted(self, total: int, now: float) -> None:
        """From here on `total` is to be seen."""
        self._awaited.append((total, now))

    def judge(self, book: Book, seen: int, now: float) -> Verdict:
        """What is wrong with `seen`, which was read after everything in the book was sent."""
        visible = []
        while self._awaited and self._awaited[0][0] <= seen:
            visible.append(now - self._awaited.popleft()[1])
        overdue = [total for total, since in self._awaited if now - since > self._patience_seconds]
        return Verdict(
            lost=max(overdue, default=seen) - seen,
            double=max(0, seen - book.accepted - book.pending),
            visible_seconds=tuple(visible),
        )
