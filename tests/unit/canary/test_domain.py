"""What the canary makes of what it sees."""

from pathlib import Path
from uuid import UUID

from services.canary.domain import Book, Run, Visibility, judged
from services.canary.storage import BookFile

_FIRST, _SECOND = UUID(int=1), UUID(int=2)
_PATIENCE_SECONDS = 60.0


def _book(*, flying: int = 0, resting: int = 0, missing: int = 0) -> Book:
    """With so much accepted; of the flying run so much is known to be missing."""
    return Book(
        flying=Run(id=_FIRST, accepted=flying, missing=missing),
        resting=Run(id=_SECOND, accepted=resting),
    )


def test_what_is_late_is_not_lost_and_its_delay_is_told_once() -> None:
    visibility = Visibility(_PATIENCE_SECONDS)
    visibility.accepted(Run(id=_FIRST, accepted=2), 0.0)
    visibility.accepted(Run(id=_FIRST, accepted=5), 10.0)
    assert visibility.seconds({_FIRST: 2}, 12.0) == [12.0]
    assert visibility.seconds({_FIRST: 2}, 60.0) == []
    assert visibility.seconds({_FIRST: 5}, 62.0) == [52.0]
    verdict = judged(_book(flying=5, resting=3), {_FIRST: 2}, rested=False)
    assert (verdict.lost, verdict.double, verdict.rested) == (0, 0, None)


def test_what_is_lost_keeps_no_later_acceptance_from_being_seen() -> None:
    visibility = Visibility(_PATIENCE_SECONDS)
    visibility.accepted(Run(id=_FIRST, accepted=5), 0.0)
    visibility.accepted(Run(id=_SECOND, accepted=7, missing=3), 1.0)
    assert visibility.seconds({_FIRST: 2, _SECOND: 4}, 2.0) == [1.0]
    assert visibility.seconds({_FIRST: 2}, 60.0) == []


def test_what_exceeds_the_patience_is_told_with_its_age_and_once() -> None:
    visibility = Visibility(_PATIENCE_SECONDS)
    visibility.accepted(Run(id=_FIRST, accepted=5), 0.0)
    assert visibility.seconds({_FIRST: 2}, 61.0) == [61.0]
    assert visibility.seconds({_FIRST: 5}, 62.0) == []


def test_a_run_that_has_rested_is_compared_to_the_unit() -> None:
    missing = judged(_book(resting=9), {_SECOND: 6}, rested=True)
    assert (missing.lost, missing.double) == (3, 0)
    assert missing.rested == Run(id=_SECOND, accepted=9, missing=3)
    too_much = judged(_book(resting=9), {_SECOND: 11}, rested=True)
    assert (too_much.lost, too_much.double) == (0, 2)


def test_what_a_rest_has_shown_stays_while_the_run_flies_until_it_comes() -> None:
    assert judged(_book(flying=20, missing=3), {_FIRST: 9}, rested=False).lost == 3
    assert judged(_book(flying=20, missing=3), {_FIRST: 20}, rested=False).lost == 0
    assert judged(_book(flying=20, missing=-3), {_FIRST: 9}, rested=False).double == 3


def test_a_run_that_missed_something_is_relieved_as_soon_as_the_other_is_whole() -> None:
    book = _book(flying=20, resting=9, missing=3)
    assert judged(book, {_FIRST: 17, _SECOND: 8}, rested=False).rested is None
    assert judged(book, {_FIRST: 17, _SECOND: 9}, rested=False).rested == book.resting
    assert judged(_book(flying=20, resting=9), {_FIRST: 17, _SECOND: 9}, rested=False).rested is None


def test_what_is_missing_of_one_run_hides_nothing_that_is_double_of_the_other() -> None:
    verdict = judged(_book(flying=20, resting=9, missing=3), {_FIRST: 17, _SECOND: 12}, rested=True)
    assert (verdict.lost, verdict.double) == (3, 3)


def test_a_batch_without_an_answer_may_count_and_nothing_else_may() -> None:
    book = _book(flying=5).begun(4)
    assert [judged(book, {_FIRST: seen}, rested=False).double for seen in (5, 9, 10)] == [0, 0, 1]


def test_a_book_is_found_again_and_a_new_file_begins_new_runs(tmp_path: Path) -> None:
    file = BookFile(tmp_path / "canary.json")
    book = file.read().begun(3)
    file.write(book)
    assert BookFile(tmp_path / "canary.json").read() == book
    assert BookFile(tmp_path / "another.json").read().flying.id != book.flying.id
    assert book.flying.id != book.resting.id
    assert book.settled().flying.accepted == 3


def test_a_file_of_the_time_of_one_series_goes_on_with_it(tmp_path: Path) -> None:
    path = tmp_path / "canary.json"
    path.write_text(f'{{"run":"{_FIRST}","accepted":9,"sequence":4,"pending":2}}')
    book = BookFile(path).read()
    assert book.flying == Run(id=_FIRST, accepted=9, sequence=4, pending=2)
    assert book.resting == Run(id=book.resting.id)
