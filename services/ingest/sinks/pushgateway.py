"""A Pushgateway as a sink: it shows the newest committed value of every live series.

Source: https://github.com/prometheus/pushgateway. A push with PUT replaces a group, one with POST the names that it
has. A group here is a project; series with a label `job`, which a group must have, are in the group of that job; where
a project has too many jobs, those of later ones are in the project's, with the label `exported_job`. Since a project
belongs to one lane, a group has one writer. What changed is POSTed by name, all series of it; where a name has gone,
and now and then, the group is PUT as a whole, which also restores what the gateway has forgotten.
"""

import asyncio
import base64
import random
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import aiohttp
import numpy as np
from yarl import URL

from chassis import failpoints, logs
from chassis.clock import Clock
from services.ingest import metrics
from services.ingest.domain import MetricType
from services.ingest.samples import Samples
from services.ingest.series import Family, SeriesTable
from services.ingest.sinks import exposition
from services.ingest.sinks.attempts import Answer, Attempts
from services.ingest.sinks.exposition import ExposedSeries
from services.ingest.sinks.remote_write import exposed_labels

log = logs.get(__name__)

_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=3)
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: The job of series that have none.
_JOB = "pulsegate"
_PLAIN_JOB = re.compile(r"[A-Za-z0-9_-]+")
_GROUP_LABELS = frozenset(("job", "project_id", "tenant_id"))
#: Lines of one POST, except where a single name has more.
_MOST_LINES = 5_000
#: Of a project. Each is a request a minute.
_MOST_GROUPS = 100
#: Each group is replaced as a whole about this often.
_REPLACE_SECONDS = 60.0


class GroupKey(NamedTuple):
    """What tells a group from others."""

    tenant_id: bytes
    project_id: bytes
    job: str

    @property
    def of_project(self) -> "GroupKey":
        """The group of series without a job."""
        return self._replace(job=_JOB)


class Pushgateway:
    """One Pushgateway."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: Callable[[], str],
        *,
        name: str,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`url` is what stands before `/metrics`; it and `headers` are asked for with each request."""
        self.name = name
        self._session = session
        self._url = url
        self._headers = headers

    def writer(self, lane: int, clock: Clock) -> "GroupsWriter":
        """See `delivery.Sink`."""
        return GroupsWriter(self, lane, clock)

    async def push(self, method: str, key: GroupKey | None, text: str = "") -> Answer:
        """Sends one request about a group; None: a group that shows that pushing works. Never raises for what happens
        on the way: status 0 says that there was no answer."""
        url = URL(f"{self._url().rstrip('/')}/metrics/{_path(key)}", encoded=True)
        headers = {**self._headers(), "Content-Type": _CONTENT_TYPE, "User-Agent": "pulsegate"}
        try:
            async with self._session.request(
                method, url, data=text.encode(), headers=headers, timeout=_TIMEOUT, allow_redirects=False
            ) as response:
                said = (await response.content.read(500)).decode(errors="replace").strip()
                return Answer(response.status, said)
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            return Answer(0, type(error).__name__)


def _path(key: GroupKey | None) -> str:
    if key is None:
        return "job/pulsegate_sink_probe"
    project_id, tenant_id = uuid.UUID(bytes=key.project_id), uuid.UUID(bytes=key.tenant_id)
    return f"{_job(key.job)}/project_id/{project_id}/tenant_id/{tenant_id}"


def _job(job: str) -> str:
    if _PLAIN_JOB.fullmatch(job):
        return f"job/{job}"
    return f"job@base64/{base64.urlsafe_b64encode(job.encode()).decode()}"


class _Group:
    """What a group is to show."""

    def __init__(self) -> None:
        #: By name and row.
        self.families: dict[str, dict[int, ExposedSeries]] = {}
        self.changed: set[str] = set()
        #: Names that are put aside until all of it is replaced.
        self.refused: set[str] = set()
        #: When all of it is to be replaced, on the monotonic clock.
        self.replace_at = 0.0

    def put(self, name: str, row: int, series: ExposedSeries) -> None:
        self.families.setdefault(name, {})[row] = series
        self.changed.add(name)

    def drop(self, name: str, row: int) -> None:
        family = self.families.get(name, {})
        family.pop(row, None)
        if family:
            self.changed.add(name)
        else:
            self.families.pop(name, None)
            self.changed.discard(name)
            self.replace_at = 0.0

    def lines(self, names: Iterable[str]) -> int:
        return sum(len(each.heads) for name in names for each in self.families[name].values())

    def text(self, names: Iterable[str]) -> str:
        return "".join(exposition.family(name, self.families[name].values()) for name in names)


class GroupsWriter:
    """See `delivery.Writer`."""

    keeps_history = False

    def __init__(self, gateway: Pushgateway, lane: int, clock: Clock) -> None:
        self._gateway = gateway
        self._clock = clock
        self._attempts = Attempts(gateway.name, lane, clock)
        self._groups: dict[GroupKey, _Group] = {}
        #: By project.
        self._group_counts: Counter[GroupKey] = Counter()
        #: What was made before this commit an earlier owner may have shown.
        self._began_ms = 0
        #: Of each row that is shown.
        self._places: dict[int, tuple[_Group, str, ExposedSeries]] = {}
        #: Whether a request got no answer: the gateway may have been restarted, and have forgotten everything.
        self._lost_sight = False

    async def write(self, samples: Samples) -> None:
        if not self._began_ms and len(samples):
            self._began_ms = int(samples.at_ms.max())
        self._show(_oldest_first(samples))
        for key, group in sorted(self._groups.items(), key=_unchanged):
            if group.replace_at <= self._clock.monotonic():
                await self._replace(key, group)
            elif group.changed:
                await self._update(key, group)
        if self._lost_sight:
            self._lost_sight = False
            for group in self._groups.values():
                group.replace_at = 0.0

    def _show(self, samples: Samples) -> None:
        for at, row in enumerate(samples.rows.tolist()):
            if samples.stale[at]:
                self._drop(samples.table, row)
            else:
                self._put(samples.table, row, _values(samples, at))

    def _put(self, table: SeriesTable, row: int, values: Sequence[float]) -> None:
        place = self._places.get(row)
        if place is None or len(place[2].heads) != len(values):  # its definition may have got objectives
            self._hide(row)
            key = self._key(table, row)
            name, series = _exposed(table, row, key)
            place = self._places[row] = (self._group(key), name, series)
        group, name, series = place
        if series.values != values:
            series.values = values
            group.put(name, row, series)

    def _drop(self, table: SeriesTable, row: int) -> None:
        if not self._hide(row):  # shown by an earlier owner
            own = _own_key(table, row)
            for key in {own, own.of_project}:
                self._group(key).replace_at = 0.0

    def _hide(self, row: int) -> bool:
        """Whether it was shown."""
        place = self._places.pop(row, None)
        if place is not None:
            place[0].drop(place[1], row)
        return place is not None

    def _key(self, table: SeriesTable, row: int) -> GroupKey:
        """Which group a series is to be in."""
        own = _own_key(table, row)
        group = self._groups.get(own)
        if (group and group.families) or self._group_counts[own.of_project] < _MOST_GROUPS:
            return own
        if table.created_ms[row] < self._began_ms:
            self._group(own)  # where an earlier owner may have shown it: nothing is in it, so that it is deleted
        return own.of_project

    def _group(self, key: GroupKey) -> _Group:
        if key not in self._groups:
            self._groups[key] = _Group()
            self._group_counts[key.of_project] += 1
        return self._groups[key]

    async def _update(self, key: GroupKey, group: _Group) -> None:
        """Pushes what has changed of a group."""
        await self._post(key, group, group.changed - group.refused)
        group.changed.clear()

    async def _post(self, key: GroupKey, group: _Group, names: Iterable[str]) -> None:
        """Pushes some names of a group; those that are refused are put aside."""
        for portion in _portions(group, names):
            await self._post_portion(key, group, portion)

    async def _post_portion(self, key: GroupKey, group: _Group, names: Sequence[str]) -> None:
        refusal = await self._refusal("POST", key, group, names)
        if refusal is not None and len(names) == 1:
            self._put_aside(group, names[0], refusal)
        elif refusal is not None:
            half = len(names) // 2
            await self._post_portion(key, group, names[:half])
            await self._post_portion(key, group, names[half:])

    async def _replace(self, key: GroupKey, group: _Group) -> None:
        """Pushes the whole group, without what is refused."""
        group.refused.clear()
        if await self._refusal("PUT", key, group, sorted(group.families)) is not None:
            await self._post(key, group, group.families)
            refusal = await self._refusal("PUT", key, group, sorted(group.families.keys() - group.refused))
            if refusal is not None:
                log.error("group not replaced", sink=self._gateway.name, status=refusal.status, text=refusal.text)
        group.changed.clear()
        group.replace_at = self._clock.monotonic() + _REPLACE_SECONDS * random.uniform(0.75, 1.25)  # noqa: S311
        if not group.families:
            del self._groups[key]
            self._group_counts[key.of_project] -= 1
            if not self._group_counts[key.of_project]:
                del self._group_counts[key.of_project]

    async def _refusal(self, method: str, key: GroupKey, group: _Group, names: Sequence[str]) -> Answer | None:
        text = group.text(names)

        async def send() -> Answer:
            answer = await self._gateway.push(method if names else "DELETE", key, text)
            self._lost_sight |= answer.status == 0
            return answer

        refusal = await self._attempts.refusal(send, [self._probe])
        if refusal is None:
            if failpoints.ARMED:
                await failpoints.reached("delivered")
            metrics.SINK_SAMPLES.labels(self._gateway.name, "delivered").inc(group.lines(names))
        return refusal

    async def _probe(self) -> Answer:
        return await self._gateway.push("PUT", None, "# TYPE pulsegate_sink_probe gauge\npulsegate_sink_probe 1\n")

    def _put_aside(self, group: _Group, name: str, refusal: Answer) -> None:
        group.refused.add(name)
        metrics.SINK_SAMPLES.labels(self._gateway.name, "quarantined").inc(group.lines([name]))
        log.error("metric put aside", sink=self._gateway.name, metric=name, status=refusal.status, text=refusal.text)


def _values(samples: Samples, at: int) -> list[float]:
    """A sample's values in the order of the heads of `_exposed`."""
    counts = samples.counts[at]
    if counts is None:
        return [float(samples.value[at])]
    native = samples.table.type[samples.rows[at]] == MetricType.NATIVE_HISTOGRAM
    buckets = counts[:1] if native else samples.buckets_at(at)
    return [*map(float, buckets), float(samples.value[at]), float(counts[0]), *samples.quantiles_at(at)]


def _unchanged(group: tuple[GroupKey, _Group]) -> bool:
    return not group[1].changed


def _oldest_first(samples: Samples) -> Samples:
    """So that another owner has the same groups."""
    table, rows = samples.table, samples.rows
    return samples.at(np.lexsort((table.ids(rows).low, table.created_ms[rows])))


def _own_key(table: SeriesTable, row: int) -> GroupKey:
    """The group of a series' job."""
    family, labels = table.families[table.family[row]], table.label_pairs(row)
    job = dict(zip(labels[::2], labels[1::2], strict=True)).get("job") or _JOB
    return GroupKey(family.tenant_id, family.project_id, job)


def _exposed(table: SeriesTable, row: int, key: GroupKey) -> tuple[str, ExposedSeries]:
    """How a series is shown in a group; without values yet."""
    family, labels = _as_text_has_it(table.families[table.family[row]]), table.label_pairs(row)
    if _own_key(table, row) != key:
        exported = "exported_job"
        while exported in labels[::2]:  # so names it Prometheus, too
            exported = f"exported_{exported}"
        labels = tuple(exported if text == "job" and not at % 2 else text for at, text in enumerate(labels))
    heads = [exposition.head(each, _GROUP_LABELS) for each in exposed_labels(family, labels)]
    return family.name, ExposedSeries(family.type, heads, ())


def _as_text_has_it(family: Family) -> Family:
    """Text has no native histograms: what is left of one is the bucket that has everything, the sum and the count."""
    if family.type is not MetricType.NATIVE_HISTOGRAM:
        return family
    return Family(
        tenant_id=family.tenant_id,
        project_id=family.project_id,
        definition_id=family.definition_id,
        name=family.name,
        type=MetricType.HISTOGRAM,
        bounds=(),
    )


def _portions(group: _Group, names: Iterable[str]) -> Iterator[list[str]]:
    """The names that are pushed together."""
    portion: list[str] = []
    lines = 0
    for name in sorted(names):
        lines += group.lines([name])
        if portion and lines > _MOST_LINES:
            yield portion
            portion, lines = [], group.lines([name])
        portion.append(name)
    if portion:
        yield portion
