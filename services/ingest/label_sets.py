"""The label sets in memory, counted against the budgets; what is over one is folded into `__other__`. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass

from services.ingest.domain import OTHER, LabelPairs, series_id
from services.ingest.records import MetricDelta
from services.ingest.series import Series

#: A definition's label sets in which every value is `__other__`, one for each choice of optional labels; past that they
#: share what is there.
_MOST_OTHERS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Budgets:
    """How many label sets become series of their own."""

    per_project: int
    per_metric: int


class LabelSets:
    """Which label sets a definition and a project have, and how many values a limited label has."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._per_project: dict[bytes, int] = {}
        self._per_definition: dict[bytes, dict[bytes, Series]] = {}
        #: By definition and limited label: how many label sets carry each value.
        self._values: dict[bytes, dict[str, dict[str, int]]] = {}
        #: By definition: the first label set that has `__other__` everywhere.
        self._others: dict[bytes, LabelPairs] = {}

    def add(self, series: Series) -> None:
        """Counts a label set that came into memory."""
        self._per_project[series.project_id] = self._per_project.get(series.project_id, 0) + 1
        self._per_definition.setdefault(series.definition_id, {})[series.id] = series
        self._count_values(series, 1)
        if series.labels and set(series.labels[1::2]) == {OTHER}:
            self._others.setdefault(series.definition_id, series.labels)

    def remove(self, series: Series) -> None:
        """Counts a label set that left memory."""
        self._count_values(series, -1)
        self._per_project[series.project_id] -= 1
        if not self._per_project[series.project_id]:
            del self._per_project[series.project_id]
        members = self._per_definition[series.definition_id]
        del members[series.id]
        if not members:
            del self._per_definition[series.definition_id]
            self._values.pop(series.definition_id, None)
            self._others.pop(series.definition_id, None)

    def _count_values(self, series: Series, change: int) -> None:
        limited = self._values.get(series.definition_id)
        if limited is None:
            return
        for name, value in zip(series.labels[::2], series.labels[1::2], strict=True):
            if (values := limited.get(name)) is not None:
                values[value] = values.get(value, 0) + change
                if not values[value]:
                    del values[value]

    def of_definition(self, definition_id: bytes) -> list[Series]:
        """The definition's series in memory."""
        return list(self._per_definition.get(definition_id, {}).values())

    def of_name(self, project_id: bytes, name: str) -> Iterable[Series]:
        """The series in memory of all definitions that have or had the name."""
        for members in self._per_definition.values():
            series = next(iter(members.values()))
            if series.project_id == project_id and series.name == name:
                yield from members.values()

    def bounded(self, project_id: bytes, metric: MetricDelta, labels: LabelPairs) -> LabelPairs:
        """The labels, with one that has too many values, or all over a series budget, as `__other__`.

        They come back as the same object where nothing is over.
        """
        if metric.max_distinct:
            labels = self._within_distinct(metric, labels)
        known = self._per_definition.get(metric.definition_id, {})
        if not labels or series_id(metric.definition_id, labels) in known:
            return labels
        over_metric = len(known) >= self._budgets.per_metric
        if over_metric or self._per_project.get(project_id, 0) >= self._budgets.per_project:
            return self._other(metric.definition_id, labels)
        return labels

    def _other(self, definition_id: bytes, labels: LabelPairs) -> LabelPairs:
        folded = tuple(OTHER if at % 2 else text for at, text in enumerate(labels))
        known = self._per_definition.get(definition_id, {})
        if len(known) < self._budgets.per_metric + _MOST_OTHERS or series_id(definition_id, folded) in known:
            return folded
        return self._others.get(definition_id, folded)

    def _within_distinct(self, metric: MetricDelta, labels: LabelPairs) -> LabelPairs:
        bounded = list(labels)
        for at in range(0, len(labels), 2):
            limit = metric.max_distinct.get(labels[at])
            if limit:
                seen = self._seen(metric.definition_id, labels[at])
                if labels[at + 1] not in seen and len(seen) - (OTHER in seen) >= limit:
                    bounded[at + 1] = OTHER
        return labels if tuple(bounded) == labels else tuple(bounded)

    def _seen(self, definition_id: bytes, label: str) -> dict[str, int]:
        limited = self._values.setdefault(definition_id, {})
        if label not in limited:
            values: dict[str, int] = {}
            for series in self._per_definition.get(definition_id, {}).values():
                pairs = zip(series.labels[::2], series.labels[1::2], strict=True)
                for value in (value for name, value in pairs if name == label):
                    values[value] = values.get(value, 0) + 1
            limited[label] = values
        return limited[label]
