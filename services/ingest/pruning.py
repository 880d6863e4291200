"""Deletes from the state what is left of deleted definitions, a part at a time."""

import asyncio

from services.ingest.aggregation import LaneState
from services.ingest.storage.checkpoints import Checkpoints, Owned

#: Series that are deleted in one transaction, while the lane folds and commits nothing.
_MOST = 5_000


class Pruning:
    """For one ownership of a lane."""

    def __init__(
        self, owned: Owned, lanes: int, state: LaneState, checkpoints: Checkpoints, memory: asyncio.Lock
    ) -> None:
        """`memory`: held by whoever loads from the state what `state` lacks, until that is folded."""
        self._owned = owned
        self._lanes = lanes
        self._state = state
        self._checkpoints = checkpoints
        self._memory = memory

    async def prune(self, reached_ms: int) -> None:
        """Deletes series whose end every sink has been delivered and that late data does not change any more, and
        forgets definitions of which none can come. All that receivers took before `reached_ms` is folded.

        Raises LaneLostError, Unavailable.
        """
        while await self._prune_some(reached_ms):
            pass
        async with self._memory:
            forgettable = self._state.ended.forgettable(reached_ms)
            if forgettable:
                await self._checkpoints.prune(self._owned, self._lanes, (), forgettable)
                self._state.ended.forget(forgettable)

    async def _prune_some(self, reached_ms: int) -> bool:
        """Says whether there may be more."""
        settled, lane = self._state.settled(reached_ms), self._owned.lane
        found = await self._checkpoints.series_of(lane, self._lanes, settled, _MOST) if settled else []
        async with self._memory:
            settled &= self._state.settled(reached_ms)  # late data may have come meanwhile
            series = [each for each in found if each.definition_id in settled]
            if series:
                await self._checkpoints.prune(self._owned, self._lanes, series, ())
            if len(found) < _MOST:
                self._state.ended.note_emptied(settled)
        return len(found) == _MOST
