"""What became of batches that are durable, so that a quick retry does not travel through the log again. No I/O.

To forget one is safe: its retry goes to the log, and the producer's window drops it there.
"""

from collections import OrderedDict

from services.ingest.domain import Outcome

#: As many as this, and no more than fit into so many bytes.
_MOST = 100_000
_MOST_BYTES = 64 << 20
#: What one takes without its rejections, and a rejection without its message, measured and rounded up.
_OUTCOME_BYTES = 480
_REJECTION_BYTES = 240
#: Of a character, at most.
_CHARACTER_BYTES = 4

BatchId = tuple[bytes, bytes, int]
"""Project id, producer id and sequence."""


class DurableOutcomes:
    """Outcomes by batch; beyond the bounds the oldest ones are forgotten."""

    def __init__(self, most: int = _MOST, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        #: In the order in which they came.
        self._outcomes: OrderedDict[BatchId, Outcome] = OrderedDict()
        #: What they take, estimated from above.
        self._bytes = 0

    def __contains__(self, batch_id: BatchId) -> bool:
        return batch_id in self._outcomes

    def get(self, batch_id: BatchId) -> Outcome | None:
        """None where the batch is not known to be durable."""
        return self._outcomes.get(batch_id)

    def remember(self, batch_id: BatchId, outcome: Outcome) -> None:
        """A retry is answered as the batch was at first, which is what counts, whatever became of definitions since."""
        if self._outcomes.setdefault(batch_id, outcome) is not outcome:
            return
        self._bytes += _bytes_of(outcome)
        while len(self._outcomes) > self._most or self._bytes > self._most_bytes:
            self._bytes -= _bytes_of(self._outcomes.popitem(last=False)[1])


def _bytes_of(outcome: Outcome) -> int:
    if not outcome.rejected:
        return _OUTCOME_BYTES
    characters = sum([len(each.message) for each in outcome.rejected])
    return _OUTCOME_BYTES + _REJECTION_BYTES * len(outcome.rejected) + _CHARACTER_BYTES * characters
