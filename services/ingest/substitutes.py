"""What label sets over a budget were folded into, so that they are not judged anew with every record. No I/O."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from services.ingest.records import DefinitionFacts, Record

#: Label sets that are remembered.
_MOST = 100_000


class _Judged(NamedTuple):
    """Label sets of one definition, and the limits of distinct values that they were judged by."""

    max_distinct: Mapping[str, int]
    identities: set[bytes]


class Substitutes:
    """By the id of a label set, the id of what stands for it, until its definition has other limits."""

    def __init__(self) -> None:
        self._substitutes: dict[bytes, bytes] = {}
        self._judged: dict[bytes, _Judged] = {}

    def __len__(self) -> int:
        return len(self._substitutes)

    def of(self, identity: bytes) -> bytes:
        """What stands for the label set: itself, where nothing else does."""
        return self._substitutes.get(identity, identity)

    def of_each(self, identities: Iterable[bytes]) -> bytes:
        """The same of many, one after the other."""
        of = self._substitutes.get
        return b"".join([of(identity, identity) for identity in identities])

    def remember(self, identity: bytes, substitute: bytes, facts: DefinitionFacts) -> None:
        """`facts`: what the label set was judged by."""
        if len(self._substitutes) >= _MOST:
            self._substitutes.clear()
            self._judged.clear()
        self._heed(facts)
        self._substitutes[identity] = substitute
        self._judged.setdefault(facts.id, _Judged(facts.max_distinct, set())).identities.add(identity)

    def heed(self, records: Iterable[Record]) -> None:
        """Forgets label sets of definitions that have other limits in these records: they are to be judged anew."""
        if self._judged:
            for record in records:
                for facts in record.definitions:
                    self._heed(facts)

    def _heed(self, facts: DefinitionFacts) -> None:
        judged = self._judged.get(facts.id)
        if judged is not None and judged.max_distinct != facts.max_distinct:
            del self._judged[facts.id]
            for identity in judged.identities:
                del self._substitutes[identity]
