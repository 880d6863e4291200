"""The label sets in memory, counted against the budgets; what is over one is folded into `__other__`. No I/O."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain, islice, product

import numpy as np

from services.ingest.columns import Mask, Rows
from services.ingest.domain import OTHER, LabelPairs, is_other, series_id
from services.ingest.records import DefinitionFacts
from services.ingest.series import Family, SeriesTable, StoredSeries, decode_labels, encode_labels

#: A definition's label sets in which every value is `__other__`, one for each choice of optional labels; past that they
#: share what is there, and so they do where memory has no room.
_MOST_OTHERS = 64
#: What a label set may become is looked for in the state before it is judged: up to so many possibilities, which are
#: all where no more than three of its values are new and have room.
_MOST_OUTCOMES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Budgets:
    """How many label sets become series of their own."""

    per_project: int
    per_metric: int
    #: Of a tenant, and in all, a label set counts as one for each KB that it takes in memory.
    per_tenant: int
    per_lane: int


class LabelSets:
    """Which label sets definitions, projects and tenants have, and how many values a limited label has."""

    def __init__(self, budgets: Budgets, table: SeriesTable, full_projects: Collection[bytes] = ()) -> None:
        """`full_projects`: those with as many series in the state as they may have."""
        self._budgets = budgets
        self.full_projects = full_projects
        self._table = table
        self._per_project: Counter[bytes] = Counter()
        self._per_definition: Counter[bytes] = Counter()
        #: What they take in memory: of each tenant, and in all.
        self._kilobytes_of: Counter[bytes] = Counter()
        self._kilobytes = 0
        #: By definition and limited label: how many label sets carry each value.
        self._values: dict[bytes, dict[str, Counter[str]]] = {}
        #: By definition: the label sets that have `__other__` everywhere, in the order in which they came.
        self._others: dict[bytes, dict[LabelPairs, None]] = {}

    def make(self, identity: bytes, family: Family, labels: LabelPairs) -> int:
        """The row of a new label set."""
        family = self._table.enter(family)
        self._count(family, labels)
        self._note_other(family, labels)
        return self._table.make(identity, family, labels)

    def admit(self, rows: Rows) -> None:
        """Counts label sets that came into memory from the state."""
        for family, members in self._by_family(rows):
            self._per_project[family.project_id] += members.size
            self._per_definition[family.definition_id] += members.size
            self._count_memory(family, self._table.kilobytes(family, members))
            self._count_values(family, members, 1)
            for row in members[self._table.other[members]].tolist():
                self._note_other(family, self._table.label_pairs(row))

    def may_wake(self, stored: StoredSeries) -> Mask:
        """Which label sets from the state may come into memory. Those of tenants that have no room there are folded, as
        new ones are, but for what is never folded and what stays in memory."""
        room = {tenant_id: self._has_room(tenant_id) for tenant_id in {each.tenant_id for each in stored.families}}
        each = zip(stored.families, stored.labels, strict=True)
        return np.array([room[family.tenant_id] or _needs_no_room(labels) for family, labels in each], np.bool_)

    def remove(self, rows: Rows) -> None:
        """Takes label sets out of memory. Their rows are still to `leave` the table, or to be reclaimed."""
        for family, members in self._by_family(rows):
            self._per_project[family.project_id] -= members.size
            self._per_definition[family.definition_id] -= members.size
            self._count_memory(family, -self._table.kilobytes(family, members))
            self._count_values(family, members, -1)
            if not self._per_project[family.project_id]:
                del self._per_project[family.project_id]
            if not self._per_definition[family.definition_id]:
                del self._per_definition[family.definition_id]
                self._values.pop(family.definition_id, None)
                self._others.pop(family.definition_id, None)
        self._table.remove(rows)

    def adopt(self, family: Family, objectives: tuple[float, ...]) -> None:
        """Gives a definition objectives, of which each of its series has a sample: see `SeriesTable.adopt`."""
        rows = self._table.of_family(family.definition_id)
        before = self._table.kilobytes(family, rows)
        self._table.adopt(family, objectives)
        self._count_memory(family, self._table.kilobytes(family, rows) - before)

    def _by_family(self, rows: Rows) -> list[tuple[Family, Rows]]:
        numbers = self._table.family[rows]
        order = np.argsort(numbers, kind="stable")
        found, first = np.unique(numbers[order], return_index=True)
        members = np.split(rows[order], first[1:])
        return [(self._table.families[number], each) for number, each in zip(found.tolist(), members, strict=False)]

    def _count_values(self, family: Family, members: Rows, change: int) -> None:
        if family.definition_id in self._values:
            for row in members.tolist():
                self._count_value(family.definition_id, self._table.label_pairs(row), change)

    def _count(self, family: Family, labels: LabelPairs) -> None:
        self._per_project[family.project_id] += 1
        self._per_definition[family.definition_id] += 1
        self._count_memory(family, family.kilobytes(np.array([len(encode_labels(labels))])))
        if family.definition_id in self._values:
            self._count_value(family.definition_id, labels, 1)

    def _count_memory(self, family: Family, change: int) -> None:
        self._kilobytes += change
        self._kilobytes_of[family.tenant_id] += change
        if not self._kilobytes_of[family.tenant_id]:
            del self._kilobytes_of[family.tenant_id]

    @property
    def fill(self) -> float:
        """What is in memory, as a part of what may be."""
        return self._kilobytes / self._budgets.per_lane

    @property
    def full_tenants(self) -> int:
        """How many tenants have as much in memory as they may."""
        return sum(each >= self._budgets.per_tenant for each in self._kilobytes_of.values())

    def _has_room(self, tenant_id: bytes) -> bool:
        """Whether memory has, for label sets of this tenant."""
        within_tenants = self._kilobytes_of[tenant_id] < self._budgets.per_tenant
        return within_tenants and self._kilobytes < self._budgets.per_lane

    def _count_value(self, definition_id: bytes, labels: LabelPairs, change: int) -> None:
        limited = self._values[definition_id]
        for name, value in zip(labels[::2], labels[1::2], strict=True):
            if name in limited:
                limited[name][value] += change
                if not limited[name][value]:
                    del limited[name][value]

    def _note_other(self, family: Family, labels: LabelPairs) -> None:
        if is_other(labels):
            self._others.setdefault(family.definition_id, {})[labels] = None

    def bounded(self, tenant_id: bytes, project_id: bytes, facts: DefinitionFacts, labels: LabelPairs) -> LabelPairs:
        """The labels of a label set that is not in memory, with one that has too many values, or all over a series
        budget, as `__other__`.

        They come back as the same object where nothing is over.
        """
        within = self._within_distinct(facts, labels) if facts.max_distinct else labels
        if not within or (within is not labels and self._known(facts.id, within)):
            return within
        over_metric = self._per_definition[facts.id] >= self._budgets.per_metric
        over_project = self._per_project[project_id] >= self._budgets.per_project
        over_project = over_project or project_id in self.full_projects
        if over_metric or over_project or not self._has_room(tenant_id) or is_other(within):
            return self.other(tenant_id, facts.id, within)
        return within

    def _known(self, definition_id: bytes, labels: LabelPairs) -> bool:
        return self._table.row_of(series_id(definition_id, labels)) >= 0

    def other(self, tenant_id: bytes, definition_id: bytes, labels: LabelPairs) -> LabelPairs:
        """What has `__other__` everywhere for a label set; past the most of them one, the same for every owner."""
        folded, others = folded_whole(labels), self._others.get(definition_id, {})
        most = _MOST_OTHERS if self._has_room(tenant_id) else 1
        return folded if folded in others or len(others) < most else min(others)

    def _within_distinct(self, facts: DefinitionFacts, labels: LabelPairs) -> LabelPairs:
        within = next(self.outcomes(facts, labels))
        return labels if within == labels else within

    def outcomes(self, facts: DefinitionFacts, labels: LabelPairs) -> Iterator[LabelPairs]:
        """What the limits of values make of a label set: first what they do now, then what they may do once others that
        come before it have taken the room."""
        choices = [self._choices(facts, name, value) for name, value in zip(labels[::2], labels[1::2], strict=True)]
        for values in islice(product(*choices), _MOST_OUTCOMES):
            yield tuple(chain.from_iterable(zip(labels[::2], values, strict=True)))

    def _choices(self, facts: DefinitionFacts, name: str, value: str) -> tuple[str, ...]:
        limit = facts.max_distinct.get(name)
        if not limit or value in (seen := self._seen(facts.id, name)):
            return (value,)
        return (value, OTHER) if len(seen) - (OTHER in seen) < limit else (OTHER,)

    def _seen(self, definition_id: bytes, label: str) -> Counter[str]:
        limited = self._values.setdefault(definition_id, {})
        if label not in limited:
            self._table.settle()
            values: Counter[str] = Counter()
            for row in self._table.of_family(definition_id).tolist():
                pairs = self._table.label_pairs(row)
                values.update(value for name, value in zip(pairs[::2], pairs[1::2], strict=True) if name == label)
            limited[label] = values
        return limited[label]


def _needs_no_room(labels: bytes) -> bool:
    pairs = decode_labels(labels)
    return not pairs or is_other(pairs)


def folded_whole(labels: LabelPairs) -> LabelPairs:
    """The label set that has `__other__` for every value."""
    return tuple(OTHER if at % 2 else text for at, text in enumerate(labels))
