"""What was read from the log, in portions between which others have their turn on the loop.

A lane's lease is renewed on that loop, and a commit that is under way goes on there: neither may wait for a backlog.
"""

from collections.abc import AsyncIterator, Sequence

from services.ingest import records
from services.ingest.folding import portions_of
from services.ingest.records import Record
from services.ingest.turns import turns_of_lane

#: Records folded together: enough that NumPy pays off, few enough that their columns stay in the processor's cache.
_RECORDS_AT_ONCE = 256
#: The same of histograms and summaries, which cost 20 µs each and more.
_DISTRIBUTIONS_AT_ONCE = 2_000


class Fetch:
    """Records that were read from the log together, up to a position."""

    def __init__(self, records: Sequence[Record], position: int, frames: int = 1) -> None:
        """`frames`: how many of the log's messages they came in."""
        self.records = records
        self.position = position
        self.frames = frames
        self.portions = portions_of(records)


async def fetches(frames: Sequence[tuple[int, bytes]]) -> AsyncIterator[Fetch]:
    """All records of the frames, which come with their positions. Each is to be folded before the next is asked for.

    Raises UnreadableLogError.
    """
    turns = turns_of_lane()
    gathered: list[Record] = []
    distributions = unfolded = 0
    for number, (position, frame) in enumerate(frames, start=1):
        read = records.decode_frame(frame)
        gathered += read
        unfolded += 1
        distributions += sum(len(record.distributions) for record in read)
        many = len(gathered) >= _RECORDS_AT_ONCE or distributions >= _DISTRIBUTIONS_AT_ONCE
        if many or number == len(frames):
            yield Fetch(gathered, position, unfolded)
            gathered, distributions, unfolded = [], 0, 0
            await turns.pause()
