"""How much may wait for sinks in one process, whatever the lane and the sink."""


class Parts:
    """Bytes, each with somebody who has them, and how many they may be together."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes: dict[object, int] = {}

    def count(self, whose: object, held_bytes: int) -> None:
        """So many are theirs now."""
        if held_bytes:
            self._bytes[whose] = held_bytes
        else:
            self._bytes.pop(whose, None)

    @property
    def too_many(self) -> bool:
        """Whether they are more than they may be."""
        return sum(self._bytes.values()) > self._most_bytes

    def too_many_of(self, whose: object) -> bool:
        """The same, and theirs are more than an equal part of what they may be; somebody's always are."""
        return self.too_many and self._bytes.get(whose, 0) * len(self._bytes) > self._most_bytes


class Backlog:
    """What waits for sinks, by delivery."""

    def __init__(self, most_bytes: int) -> None:
        self.waiting = Parts(most_bytes)
        #: Of it, what no later samples replace; counted only while too much waits.
        self.parting = Parts(most_bytes)

    def leave(self, whose: object) -> None:
        """Nothing of theirs waits any more."""
        self.waiting.count(whose, 0)
        self.parting.count(whose, 0)
