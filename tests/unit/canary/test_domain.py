"""What the canary makes of what it sees."""

from pathlib import Path

from services.canary.domain import Book, Comparison
from services.canary.storage import BookFile

_PATIENCE_SECONDS = 60.0


def _accepted(*totals_at: tuple[int, float]) -> Comparison:
    comparison = Comparison(_PATIENCE_SECONDS)
    for total, at in totals_at:
        comparison.accepted(total, at)
    return comparison


def test_what_is_late_is_not_lost_and_its_delay_is_told_once() -> None:
    comparison = _accepted((2, 0.0), (5, 10.0))
    book = Book(run="r", accepted=5)
    assert comparison.judge(book, 2, 12.0).visible_seconds == (12.0,)
    late = comparison.judge(book, 2, 60.0)
    assert (late.lost, late.double, late.visible_seconds) == (0, 0, ())
    assert comparison.judge(book, 5, 62.0).visible_seconds == (52.0,)


def test_what_is_not_there_after_its_patience_is_lost_until_it_comes() -> None:
    comparison = _accepted((2, 0.0), (5, 10.0), (9, 50.0))
    book = Book(run="r", accepted=9)
    assert comparison.judge(book, 2, 71.0).lost == 3
    assert comparison.judge(book, 9, 72.0).lost == 0


def test_a_batch_without_an_answer_may_count_and_nothing_else_may() -> None:
    book = Book(run="r", accepted=5).begun(4)
    assert _accepted((5, 0.0)).judge(book, 5, 1.0).double == 0
    assert _accepted((5, 0.0)).judge(book, 9, 1.0).double == 0
    assert _accepted((5, 0.0)).judge(book, 10, 1.0).double == 1


def test_a_book_is_found_again_and_a_new_file_begins_a_new_run(tmp_path: Path) -> None:
    file = BookFile(tmp_path / "canary.json")
    book = file.read().begun(3)
    file.write(book)
    assert BookFile(tmp_path / "canary.json").read() == book
    assert BookFile(tmp_path / "another.json").read().run != book.run
    assert book.settled().accepted == 3
