"""The deleted definitions that a lane remembers, so that late data of theirs does not begin anything. No I/O."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from services.ingest.domain import REMEMBERED_MS

#: Receivers learn of a deletion within about a second. For so long after the end of a definition's series was
#: committed they stay in the state, for what comes from one that was cut off.
_LATE_MS = 3_600_000


class EndedDefinition(NamedTuple):
    """A definition that was deleted, and whose it was."""

    tenant_id: bytes
    project_id: bytes
    definition_id: bytes


class EndedDefinitions:
    """When definitions ended, which of them end with the next commit, and which have no series in the state."""

    def __init__(self, ended_ms: Mapping[bytes, int]) -> None:
        """`ended_ms`: by definition, the commit that ended it last."""
        self._ended_ms = dict(ended_ms)
        self._ending: dict[bytes, EndedDefinition] = {}
        self._emptied: set[bytes] = set()

    def __contains__(self, definition_id: bytes) -> bool:
        return definition_id in self._ended_ms

    def end(self, ended: EndedDefinition) -> None:
        """Its series end with the next commit: it was deleted, or has been given data once more by a receiver that did
        not know yet."""
        self._ended_ms.setdefault(ended.definition_id, 0)
        self._ending[ended.definition_id] = ended

    @property
    def ending(self) -> Collection[EndedDefinition]:
        """Those that end with the next commit, in order."""
        return self._ending.values()

    def seal(self, commit_ms: int) -> list[EndedDefinition]:
        """Those that end with this commit."""
        ending, self._ending = self._ending, {}
        self._ended_ms |= dict.fromkeys(ending, commit_ms)
        self._emptied -= ending.keys()
        return list(ending.values())

    def settled(self, reached_ms: int) -> set[bytes]:
        """Those with series in the state that no late data changes any more, once all that receivers took before
        `reached_ms` is folded."""
        over = self._older_than(reached_ms - _LATE_MS)
        return over - self._ending.keys() - self._emptied

    def note_emptied(self, definition_ids: Collection[bytes]) -> None:
        """The state has no series of these any more."""
        self._emptied.update(definition_ids)

    def forgettable(self, reached_ms: int) -> set[bytes]:
        """Those without series of which nobody can send anything any more."""
        return self._older_than(reached_ms - REMEMBERED_MS) & self._emptied - self._ending.keys()

    def forget(self, definition_ids: Collection[bytes]) -> None:
        """The state does not know these any more."""
        for definition_id in definition_ids:
            del self._ended_ms[definition_id]
        self._emptied.difference_update(definition_ids)

    def _older_than(self, at_ms: int) -> set[bytes]:
        return {definition_id for definition_id, ended_ms in self._ended_ms.items() if ended_ms < at_ms}
