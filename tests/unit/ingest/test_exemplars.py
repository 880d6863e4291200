"""Which exemplars a commit shows."""

import msgspec
import numpy as np

from services.ingest.columns import Ids, Rows
from services.ingest.exemplars import NewestExemplars
from services.ingest.records import Record, RecordedExemplar
from tests.unit.ingest.ingestion import record


def rows_of(ids: Ids) -> Rows:
    """Series are named by their rows."""
    return np.array([int.from_bytes(each, "big") for each in ids.each()], np.intp)


def shown(project: bytes, rows: range, value: float = 1.0) -> list[tuple[Record, RecordedExemplar]]:
    of_project = msgspec.structs.replace(record(), project_id=project)
    return [(of_project, RecordedExemplar(row.to_bytes(16, "big"), value, b"t" * 16, b"s" * 8)) for row in rows]


def test_a_project_takes_no_more_than_its_share_and_still_shows_its_newest() -> None:
    newest = NewestExemplars()
    newest.note(shown(b"A" * 16, range(5_000)), rows_of)
    newest.note(shown(b"A" * 16, range(10), value=2.0), rows_of)
    newest.note(shown(b"B" * 16, range(5_000, 5_010)), rows_of)
    sealed = newest.seal()
    assert set(sealed) == {*range(1_000), *range(5_000, 5_010)}
    assert [sealed[row].value for row in (9, 10)] == [2.0, 1.0]
    newest.note(shown(b"A" * 16, range(5_000)), rows_of)
    assert len(newest.seal()) == 1_000, "with each commit anew"


def test_all_projects_together_have_a_limit() -> None:
    newest = NewestExemplars()
    for number in range(12):
        newest.note(shown(bytes([number]) * 16, range(1_000 * number, 1_000 * number + 1_000)), rows_of)
    assert len(newest.seal()) == 10_000
