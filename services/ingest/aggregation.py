"""The state of one lane in memory, and how records change it. No I/O: `lane.py` loads, commits and delivers.

Records are folded in place, so that folding goes on while the checkpoint before is being committed; a checkpoint is a
copy taken at one moment (`sealing.py`). After an error the whole state is dropped and loaded anew.
"""

from collections.abc import Collection, Sequence

import numpy as np

from services.ingest import additions, metrics, recent
from services.ingest.columns import Ids, Rows
from services.ingest.domain import LabelPairs, MetricType, partition_of, series_id
from services.ingest.ended_definitions import EndedDefinition, EndedDefinitions
from services.ingest.errors import UnreadableLogError
from services.ingest.exemplars import NewestExemplars
from services.ingest.fetches import Fetch
from services.ingest.folding import Portion
from services.ingest.label_sets import Budgets, LabelSets, folded_whole
from services.ingest.ledger import Ledger
from services.ingest.loading import NOTHING_FOUND, Found, Loaded, Missing
from services.ingest.producers import Producers
from services.ingest.records import DefinitionFacts, Kind, Record
from services.ingest.sealing import Checkpoint, Sealer
from services.ingest.series import Family, StoredSeries
from services.ingest.sources import Sources
from services.ingest.substitutes import Substitutes
from services.ingest.turns import Steps


class LaneState:
    """The series and producers of one lane."""

    def __init__(
        self,
        loaded: Loaded,
        budgets: Budgets,
        *,
        stale_after_ms: int,
        interval_ms: int,
        write_all: bool = False,
    ) -> None:
        """`write_all`: the first commit's overdue samples have every live series, as for a sink that was given none."""
        self.position = loaded.position
        self.commit_ms = loaded.commit_ms
        self._table = loaded.table
        self.label_sets = LabelSets(budgets, self._table, loaded.full_of_series)
        self.producers = Producers()
        self.sources = Sources()
        self.ended = EndedDefinitions(loaded.ended)
        self._substitutes = Substitutes()
        self._newest_received_ms = 0
        self._exemplars = NewestExemplars()
        self._ledger = Ledger()
        self._sealer = Sealer(
            self._table,
            self.label_sets,
            stale_after_ms=stale_after_ms,
            interval_ms=interval_ms,
            ended_ms=max(loaded.ended.values(), default=0),
            delivered_ms=loaded.delivered_ms,
        )
        self._begin(loaded, write_all=write_all)

    def _begin(self, loaded: Loaded, *, write_all: bool) -> None:
        table, unmarked = self._table, loaded.unmarked
        rows = np.flatnonzero(table.present[: table.size])
        self.label_sets.admit(rows)
        table.live[rows] = table.changed_ms[rows] > loaded.live_since_ms
        last_values = unmarked[table.changed_ms[unmarked] > loaded.delivered_ms]
        recent.restore(table, loaded.recent, last_values)
        table.levels.touch(rows[table.merged[rows]])
        undelivered = rows if write_all else rows[table.changed_ms[rows] > loaded.delivered_ms]
        self._sealer.write_undelivered(undelivered, loaded.delivered_ms)
        self._end_again(loaded, last_values)

    def _end_again(self, loaded: Loaded, last_values: Rows) -> None:
        """Writes the ends of deleted definitions, and values before them, that may not be delivered."""
        table, unmarked = self._table, loaded.unmarked
        numbers = table.family[unmarked]
        in_order = unmarked[np.argsort(table.created_ms[unmarked], kind="stable")]
        for number in dict.fromkeys(table.family[in_order].tolist()):
            rows, family = unmarked[numbers == number], table.families[number]
            due_ms = np.maximum(table.changed_ms[rows], loaded.ended[family.definition_id])
            self._sealer.end(family, rows, last_values[table.family[last_values] == number], due_ms)
            self._write_namesakes(family.project_id, family.name)
        table.leave(unmarked)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def gauge_levels(self) -> int:
        """How many levels merged gauges are made of."""
        return len(self._table.levels)

    def missing(self, fetch: Fetch) -> Missing:
        """What must be found before these records can be folded."""
        missing = Missing(set(), set(), set())
        for record in fetch.records:
            if record.producer and (key := (record.project_id, record.producer)) not in self.producers:
                missing.producers.add(key)
        for portion in fetch.portions:  # all of them first: what they make forgotten has to be looked for
            self._substitutes.heed(portion.records)
        for portion in fetch.portions:
            portion.rows, portion.version = self._rows_of(portion.ids), self._table.version
            absent = np.flatnonzero(portion.rows < 0)
            if absent.size:
                self._add_missing(missing, portion, absent)
            if portion.cumulative:
                keys = {(reading.record.project_id, reading.source) for reading in portion.readings()}
                missing.sources.update(key for key in keys if key not in self.sources)
        return missing

    def _add_missing(self, missing: Missing, portion: Portion, absent: Rows) -> None:
        partitions: dict[bytes, int] = {}
        ids = portion.ids.at(absent).each()
        for identity, (record, facts, stands_for) in zip(ids, portion.sources(absent), strict=True):
            if facts.id in self.ended and facts.id not in portion.heirs:
                portion.heirs[facts.id] = self._heir(record.project_id, facts)
            wanted = self._may_go_to(*portion.inherited(identity, facts, stands_for.labels), stands_for.labels)
            partitions.update(dict.fromkeys(wanted, partition_of(record.project_id)))
        rows = self._table.find(Ids.of(b"".join(partitions)))
        portion.sought = {each for each, row in zip(partitions, rows.tolist(), strict=True) if row < 0}
        missing.series.update((partitions[each], each) for each in portion.sought)

    def _may_go_to(self, identity: bytes, facts: DefinitionFacts, labels: LabelPairs) -> set[bytes]:
        """The ids of all series that a label set's data may go to when it is folded, but for what has `__other__`
        everywhere, which is in memory; not so of a definition that has ended."""
        places = {identity, self._substitutes.of(identity)}
        if facts.max_distinct:
            places.update(series_id(facts.id, each) for each in self.label_sets.outcomes(facts, labels))
        if facts.id in self.ended:
            places.add(series_id(facts.id, folded_whole(labels)))
        return places

    def _heir(self, project_id: bytes, facts: DefinitionFacts) -> bytes:
        """Whose series data of a definition goes to that has ended, which the receiver did not know yet: those of the
        definition that bears its name now and can take the data; its own where there is none."""
        for family in self._table.families_of(project_id, facts.name):
            alike = (family.type, family.bounds, family.merge) == (facts.type, facts.bounds, facts.gauge_merge)
            if alike and family.definition_id not in self.ended:
                return family.definition_id
        return facts.id

    def _rows_of(self, ids: Ids) -> Rows:
        """The row of each id, or of what stands for it because it was over a budget; -1 where there is none."""
        rows = self._table.find(ids)
        if self._substitutes:
            absent = np.flatnonzero(rows < 0)
            rows[absent] = self._table.find(Ids.of(self._substitutes.of_each(ids.at(absent).each())))
        return rows

    def _live_rows_of(self, ids: Ids) -> Rows:
        """The same, and -1 for series that are only looked at, whose rows may be others' soon."""
        rows = self._rows_of(ids)
        rows[(rows >= 0) & ~self._table.live[rows]] = -1
        return rows

    def fold(self, fetch: Fetch, found: Found = NOTHING_FOUND) -> None:
        """Takes the records in, except those of which their producer's window says that they are in already.

        `found`: what `missing` asked for; nothing may have been folded or sealed since. Raises UnreadableLogError where
        a record does not fit the series; what is in memory is then void.
        """
        admitted = self._admit_found(found)
        for portion in fetch.portions:
            if portion.cumulative:
                self._fold_totals(portion)
            elif portion.records:
                self._fold(portion)
            for ending in portion.endings:
                for facts in ending.definitions:
                    if facts.id not in self.ended:
                        self.ended.end(EndedDefinition(ending.tenant_id, ending.project_id, facts.id))
                metrics.RECORDS_FOLDED.labels("counted").inc()
        for record in fetch.records:
            if record.kind is Kind.TALLY:
                self._ledger.add(record)
        self.position = fetch.position
        newest_ms = max((record.received_ms for record in fetch.records), default=0)
        self._newest_received_ms = max(self._newest_received_ms, newest_ms)
        for rows in admitted:
            self._let_go(rows)

    def _admit_found(self, found: Found) -> list[Rows]:
        for key, window in found.windows.items():
            self.producers.admit(key, window)
        for source, totals in found.sources.items():
            self.sources.admit(source, totals)
        admitted = [self._admit(stored) for stored in found.series]
        recent.restore(self._table, found.recent)
        return admitted

    def _admit(self, stored: StoredSeries) -> Rows:
        """Takes stored series into memory that may be there. They stay quiet until a record changes them."""
        stored = stored.at(self.label_sets.may_wake(stored))
        rows = self._table.restore(stored)
        for family in {each.definition_id: each for each in stored.families}.values():
            if family.definition_id in self.ended:
                self.ended.end(EndedDefinition(family.tenant_id, family.project_id, family.definition_id))
        self.label_sets.admit(rows)
        return rows

    def _let_go(self, admitted: Rows) -> None:
        """Forgets those that no record has changed, as when the record was a duplicate, or went somewhere else."""
        table = self._table
        unused = admitted[table.present[admitted] & ~table.live[admitted] & ~table.other[admitted]]
        if unused.size:
            self.label_sets.remove(unused)
            table.reclaim(unused)

    def _fold(self, portion: Portion) -> None:
        accepted = [self.producers.claim(record) for record in portion.records]
        counted = sum(accepted)
        metrics.RECORDS_FOLDED.labels("counted").inc(counted)
        metrics.RECORDS_FOLDED.labels("duplicate").inc(len(accepted) - counted)
        rows = portion.rows if portion.version == self._table.version else self._rows_of(portion.ids)
        wanted = portion.mask(accepted)
        new = np.flatnonzero((rows < 0) & wanted)
        if new.size:
            self._make(portion, rows, new)
        self._check_families(portion, accepted)
        self._ledger.count(portion, accepted, rows, self._table)
        self._fold_scalars(portion, rows, np.flatnonzero(wanted[: portion.scalar_count]))
        for at in np.flatnonzero(wanted[portion.scalar_count :]).tolist():
            row = int(rows[portion.scalar_count + at])
            additions.add_distribution(self._table, row, portion.distributions[at], portion.arrivals[at])
        self._note_changed(rows[wanted])
        self._exemplars.note(portion.exemplars(accepted), self._live_rows_of)

    def _note_changed(self, changed: Rows) -> None:
        self._table.dirty[changed] = self._table.live[changed] = True
        metrics.SERIES_FOLDED_AWAY.inc(int(np.count_nonzero(self._table.folded[changed])))

    def _fold_totals(self, portion: Portion) -> None:
        """Totals of cumulative sources: what they add to those before them goes to their series. A total that is not
        news is the same as a batch that was counted: it changes nothing."""
        rows = portion.rows if portion.version == self._table.version else self._rows_of(portion.ids)
        table = self._table
        if (new := np.flatnonzero(rows < 0)).size:
            self._make(portion, rows, new)
        self._check_families(portion, [True] * len(portion.records))
        definition_ids = [table.families[number].definition_id for number in table.family[rows].tolist()]
        try:
            native = table.type[rows] == MetricType.NATIVE_HISTOGRAM
            increments = self.sources.increments(portion, definition_ids, native)
        except ValueError as error:
            raise UnreadableLogError(f"a total is no native histogram: {error}") from error
        self._ledger.count_each(portion, increments.news, rows, table)
        places = np.flatnonzero(increments.news[: portion.scalar_count])
        additions.add_parts(table, rows[places], increments.values[places], portion.parts()[places])
        for at in np.flatnonzero(increments.news[portion.scalar_count :]).tolist():
            row = int(rows[portion.scalar_count + at])
            additions.add_distribution(table, row, increments.distributions[at], portion.arrivals[at])
        self._note_changed(rows[increments.news])
        self._exemplars.note(portion.exemplars(), self._live_rows_of)
        counted = portion.count_of(increments.news)
        metrics.RECORDS_FOLDED.labels("counted").inc(counted)
        metrics.RECORDS_FOLDED.labels("duplicate").inc(len(portion.records) - counted)

    def _check_families(self, portion: Portion, accepted: Sequence[bool]) -> None:
        for record, counts in zip(portion.records, accepted, strict=True):
            if counts and record.distributions:
                for facts in record.definitions:
                    family = self._table.family_of(facts.id)
                    if family and family.bounds != facts.bounds:
                        raise additions.other_buckets(facts.name)
                    if family and facts.objectives and not family.objectives:
                        self.label_sets.adopt(family, facts.objectives)

    def _fold_scalars(self, portion: Portion, rows: Rows, places: Rows) -> None:
        table, rows, values = self._table, rows[places], portion.values()[places]
        types = table.type[rows]
        if (types > MetricType.GAUGE).any():
            raise UnreadableLogError("a record has a single value for a histogram or summary")
        gauges = types == MetricType.GAUGE
        if not gauges.any():
            additions.add_counters(table, rows, values)
            return
        additions.add_counters(table, rows[~gauges], values[~gauges])
        rows, places, values = rows[gauges], places[gauges], values[gauges]
        single = recent.report(table, portion, rows, places)
        additions.set_newest(table, rows[single], values[single], portion.timestamps()[places[single]])

    def _make(self, portion: Portion, rows: Rows, new: Rows) -> None:
        """Gives rows to label sets that are in neither memory nor the state.

        What was read together may end a definition, or bring the first data of one: late data still goes where it was
        looked for, since a series that nobody looked for may be in the state.
        """
        for place, identity, source in zip(new.tolist(), portion.ids.at(new).each(), portion.sources(new), strict=True):
            record, facts, stands_for = source
            series, facts = portion.inherited(identity, facts, stands_for.labels)
            if facts.id in self.ended:
                self.ended.end(EndedDefinition(record.tenant_id, record.project_id, facts.id))
            rows[place] = self._make_one(record, facts, series, stands_for.labels, portion.sought)
        self._table.settle()

    def _make_one(
        self, record: Record, facts: DefinitionFacts, identity: bytes, labels: LabelPairs, sought: Collection[bytes]
    ) -> int:
        row = self._row_of(identity)
        if row >= 0:  # made by an earlier record of the same portion
            return row
        bounded = self.label_sets.bounded(record.tenant_id, record.project_id, facts, labels)
        if bounded is not labels:
            substitute = series_id(facts.id, bounded)
            if substitute not in sought and self._table.row_of(substitute) < 0:  # it may be in the state
                bounded = self.label_sets.other(record.tenant_id, facts.id, labels)
                substitute = series_id(facts.id, bounded)
            self._substitutes.remember(identity, substitute, facts)
            identity = substitute
            if (row := self._table.row_of(identity)) >= 0:
                return row
        family = Family(
            tenant_id=record.tenant_id,
            project_id=record.project_id,
            definition_id=facts.id,
            name=facts.name,
            type=facts.type,
            bounds=facts.bounds,
            merge=facts.gauge_merge,
            objectives=facts.objectives,
        )
        return self.label_sets.make(identity, family, bounded)

    def _row_of(self, identity: bytes) -> int:
        """As `_rows_of`, of one label set, newcomers too."""
        row = self._table.row_of(identity)
        substitute = self._substitutes.of(identity)
        return self._table.row_of(substitute) if row < 0 and substitute != identity else row

    def _write_end(self, definition_id: bytes) -> None:
        """What the definition's series have come to is written, then that they end; they leave memory."""
        table = self._table
        rows, family = table.of_family(definition_id), table.family_of(definition_id)
        if family is not None:
            live = rows[table.live[rows]]
            self._sealer.end(family, live, live[table.dirty[live]])
            self.label_sets.remove(rows)
            table.leave(rows)
            self._write_namesakes(family.project_id, family.name)

    def _write_namesakes(self, project_id: bytes, name: str) -> None:
        """A definition that was made anew under the name of a deleted one shares its series in the sinks: what it has
        is written again after the stale markers."""
        rows = self._table.of_name(project_id, name)
        self._table.dirty[rows] |= self._table.live[rows]

    def sealing(self, now_ms: int) -> Steps[Checkpoint]:
        """A copy of what changed since the last one, and of what is due for the sinks: nothing may change in between.

        Its timestamp is at least 5 ms after the last commit's, whatever this machine's clock says: a counter must not
        look reset, and the milliseconds before it are free for the last values of series that end, their stale markers,
        and the first zeros of series that follow them under the same name.
        """
        silent = yield from recent.settle(self._table, max(now_ms, self.commit_ms), self._sealer.undelivered)
        passing = yield from recent.seal(self._table)
        for ending in self.ended.ending:
            self._write_end(ending.definition_id)
            yield
        self.commit_ms = max(now_ms, self.commit_ms + self._sealer.least_ms)
        ended = self.ended.seal(self.commit_ms)
        series = self._sealer.series(self.commit_ms, silent)
        adopted, self._table.adopted = self._table.adopted, []
        newest_received_ms, self._newest_received_ms = self._newest_received_ms, 0
        return Checkpoint(
            commit_ms=self.commit_ms,
            position=self.position,
            made=series.made,
            changed=series.changed,
            samples=series.samples.with_exemplars(self._exemplars.seal()),
            overdue=series.overdue,
            producers=self.producers.seal(now_ms),
            sources=self.sources.seal(now_ms),
            ended=ended,
            newest_received_ms=newest_received_ms,
            ledger=self._ledger.seal(),
            recent=passing,
            adopted=adopted,
            forgotten=bool(ended) or silent.size > 0,
        )

    def settled(self, reached_ms: int) -> set[bytes]:
        """Deleted definitions whose series the state need not keep: their ends are delivered to all sinks, and late
        data does not change them any more. All that receivers took before `reached_ms` is folded."""
        return {each for each in self.ended.settled(reached_ms) if self._table.family_of(each) is None}

    def delivered(self, commit_ms: int) -> None:
        """Every commit up to this one is delivered, to all sinks."""
        self._table.delivered(commit_ms)
