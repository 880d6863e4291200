"""Definitions that data brings about, in projects that let it: config is asked to make what a request has points for.

Only points define that a secret key sends, through doors that know a metric's type: all but `POST /api/v1/metrics`. A
classic histogram of remote write is left out too, because a request may hold a part of its buckets alone.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

from chassis.clock import Clock
from chassis.errors import PulsegateError, Unavailable
from services.ingest.clients import DefiningClient, Provisional
from services.ingest.definitions import DefinitionTable
from services.ingest.domain import UNDEFINED, Fault, MetricType, Rejection
from services.ingest.points import COUNTERS, GAUGES, Buckets, Component, Point

#: Of a request; the others are for the next one.
_MOST_NEW_NAMES = 50
#: How long a project waits after an attempt from which nothing came.
_PAUSE_SECONDS = 1.0
_MOST_PAUSES = 1_000
#: Whoever visits a page has its publishable key, and must not say what there is to measure.
_PUBLISHABLE = "a publishable key defines nothing. Send it with a secret key first, or define it."
_TOO_MANY = f"one request makes {_MOST_NEW_NAMES} definitions at most. Send it again."
_PAUSED = "nothing came of the new names that were sent just before. Send it again in a second."


class AutoDefinition:
    """Asks config to define, one request of a project at a time."""

    def __init__(self, client: DefiningClient, definitions: DefinitionTable, clock: Clock) -> None:
        self._client = client
        self._definitions = definitions
        self._clock = clock
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        #: Until when each project waits, on the monotonic clock, and what config said.
        self._paused: dict[bytes, tuple[float, Mapping[str, str]]] = {}

    async def define(
        self, tenant_id: bytes, project_id: bytes, points: Sequence[Point | Fault], key_kind: str
    ) -> Mapping[str, str]:
        """By name, why what is not defined now is not; what can be is known to the table then. The project's
        definitions must have been confirmed. `key_kind`: of the key that sends the points, as `Principal.kind`.

        Raises Unavailable.
        """
        if not self._definitions.lets_data_define(project_id):
            return {}
        if key_kind != "secret":
            return dict.fromkeys(_names(points), _PUBLISHABLE)
        turn = self._turns.get(project_id) or self._turns.setdefault(project_id, asyncio.Lock())
        async with turn:
            there = self._definitions.of_project(project_id)
            wanted = wanted_by(points, there)
            until, refused = self._paused.get(project_id, (0.0, {}))
            if wanted and self._clock.monotonic() >= until:
                refused = await self._ask(tenant_id, project_id, wanted)
            elif wanted:
                refused = {**dict.fromkeys((each.name for each in wanted), _PAUSED), **refused}
            if len(wanted) == _MOST_NEW_NAMES:
                left_out = _names(points).difference(each.name for each in wanted)
                refused = {**dict.fromkeys(left_out, _TOO_MANY), **refused}
            return refused

    async def _ask(self, tenant_id: bytes, project_id: bytes, wanted: Sequence[Provisional]) -> Mapping[str, str]:
        try:
            refused = await self._client.define(tenant_id, project_id, wanted)
        except PulsegateError as error:
            raise Unavailable.waiting_for("config", "New metrics cannot be defined now.", 1.0) from error
        await self._definitions.confirm(project_id)
        there = self._definitions.of_project(project_id)
        if not any(each.name in there for each in wanted):
            if len(self._paused) >= _MOST_PAUSES:
                self._paused.clear()
            self._paused[project_id] = (self._clock.monotonic() + _PAUSE_SECONDS, refused)
        return refused


def explained(rejection: Rejection, points: Sequence[Point | Fault], refused: Mapping[str, str]) -> Rejection:
    """With why its metric was not made from the data, where that is so."""
    point = points[rejection.index]
    if rejection.code != UNDEFINED or isinstance(point, Fault) or (reason := refused.get(point.names[0])) is None:
        return rejection
    return replace(rejection, message=f"{rejection.message} Data does not make it: {reason}")


def wanted_by(points: Iterable[Point | Fault], there: Mapping[str, object]) -> list[Provisional]:
    """What the points need that is not there: as many as one request may bring, each with all labels of its points."""
    found: dict[str, Provisional] = {}
    for point in points:
        if isinstance(point, Fault) or any(name in there for name in point.names):
            continue
        name = point.names[0]
        if name in found:
            found[name].labels.update(dict.fromkeys(_named(point)))
        elif len(found) < _MOST_NEW_NAMES and (metric_type := _type(point)) is not None:
            bounds = point.value.bounds if isinstance(point.value, Buckets) else ()
            found[name] = Provisional(name, metric_type, dict.fromkeys(_named(point)), bounds)
    return list(found.values())


def _names(points: Iterable[Point | Fault]) -> set[str]:
    """Of what may be defined by data at all."""
    return {point.names[0] for point in points if not isinstance(point, Fault) and _type(point) is not None}


def _named(point: Point) -> list[str]:
    return [name for name, value in point.labels.items() if value]


def _type(point: Point) -> MetricType | None:
    """What the point is of; None where that cannot be told."""
    if isinstance(point.value, Component):
        return None
    if point.types == COUNTERS | GAUGES:
        return MetricType.COUNTER if point.names[0].endswith("_total") else MetricType.GAUGE
    return MetricType.HISTOGRAM if MetricType.HISTOGRAM in point.types else next(iter(point.types))
