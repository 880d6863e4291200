"""What the canary has sent, and what must therefore be seen. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec


class Run(msgspec.Struct, kw_only=True, frozen=True):
    """What was sent for one series, as it is kept."""

    #: Producer of all its batches and label of the series.
    id: UUID
    #: Units that were accepted.
    accepted: int = 0
    #: Sequence number of the newest batch.
    sequence: int = 0
    #: Units of a batch that was sent and not accepted yet: counted or not, it is sent again until that is known.
    pending: int = 0
    #: What its last rest has shown: units that are missing; below 0, units too many.
    missing: int = 0

    def begun(self, units: int) -> "Run":
        """With the next batch, before it is sent."""
        return msgspec.structs.replace(self, sequence=self.sequence + 1, pending=units)

    def settled(self) -> "Run":
        """The pending batch was accepted."""
        return msgspec.structs.replace(self, accepted=self.accepted + self.pending, pending=0)

    def missing_of(self, seen: int, *, rested: bool) -> int:
        """To the unit where it has `rested`. Before, what is not seen is on its way, and nothing new is missing for
        that; but what was missing may be there now, and what was never sent is too much."""
        missing = self.accepted + self.pending - seen
        return missing if rested else min(self.missing, missing)


class Book(msgspec.Struct, kw_only=True, frozen=True):
    """Two runs that take turns: one is sent, the other stands still, so that it can be compared to the unit."""

    flying: Run
    #: Nothing of it is pending.
    resting: Run
    #: Since when it rests, Unix milliseconds.
    resting_since_ms: int = 0

    def begun(self, units: int) -> "Book":
        """With the next batch, before it is sent."""
        return msgspec.structs.replace(self, flying=self.flying.begun(units))

    def settled(self) -> "Book":
        """The pending batch was accepted."""
        return msgspec.structs.replace(self, flying=self.flying.settled())

    def turned(self, rested: Run, now_ms: int) -> "Book":
        """The run that has rested flies, and the other one rests. Nothing may be pending."""
        return Book(flying=rested, resting=self.flying, resting_since_ms=now_ms)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a comparison says, in units."""

    lost: int
    double: int
    #: The run that rests, with what that has shown; None: it must rest on.
    rested: Run | None


def judged(book: Book, seen: Mapping[UUID, int], *, rested: bool) -> Verdict:
    """What is wrong with `seen`, which was read after everything in the book was sent. `rested`: and so long after the
    resting run's last batch that all of it must be there."""
    flying = book.flying.missing_of(seen.get(book.flying.id, 0), rested=False)
    resting = book.resting.missing_of(seen.get(book.resting.id, 0), rested=rested)
    # Only at rest can a run show that all it was missing came: it waits no longer than until the other one is whole.
    relieves = book.flying.missing > 0 and seen.get(book.resting.id, 0) == book.resting.accepted
    return Verdict(
        lost=max(0, flying) + max(0, resting),
        double=max(0, -flying) + max(0, -resting),
        rested=msgspec.structs.replace(book.resting, missing=resting) if rested or relieves else None,
    )


class Visibility:
    """How long it takes until what was accepted is seen."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        #: Runs and what is to be seen of them, after each acceptance that was not seen yet, with its moment.
        self._awaited: list[tuple[UUID, int, float]] = []

    def accepted(self, run: Run, now: float) -> None:
        """From here on the run's units are to be seen, but those that are known to be missing."""
        self._awaited.append((run.id, run.accepted - run.missing, now))

    def seconds(self, seen: Mapping[UUID, int], now: float) -> Sequence[float]:
        """Of each acceptance that is seen for the first time, or has exceeded the patience: that is waited for no
        longer, and took at least so long."""
        ended, awaited = [], []
        for run, units, since in self._awaited:
            if seen.get(run, 0) >= units or now - since > self._patience_seconds:
                ended.append(now - since)
            else:
                awaited.append((run, units, since))
        self._awaited = awaited
        return ended
