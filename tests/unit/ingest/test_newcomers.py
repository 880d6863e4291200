"""What publishable keys bring a project between two counts."""

import uuid
from collections.abc import Iterator
from typing import Any, cast

import pytest

from services.ingest import admission
from services.ingest.admission import Admission
from services.ingest.decoding import Batch
from services.ingest.newcomers import Newcomers
from tests.moved_clock import MovedClock

ONE, OTHER = uuid.uuid4().bytes, uuid.uuid4().bytes


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def newcomers(clock: MovedClock) -> Newcomers:
    return Newcomers("producers", 50_000, clock)


def ids(count: int) -> Iterator[bytes]:
    return (number.to_bytes(16, "big") for number in range(count))


def test_a_project_has_very_many_once_so_many_were_seen_of_it_in_ten_minutes(
    newcomers: Newcomers, clock: MovedClock
) -> None:
    newcomers.note(ONE, ids(30_000))
    assert not newcomers.are_many(ONE)
    newcomers.note(ONE, ids(80_000))
    assert newcomers.are_many(ONE)
    assert not newcomers.are_many(OTHER)
    clock.seconds += 599
    assert newcomers.are_many(ONE)
    clock.seconds += 1
    assert not newcomers.are_many(ONE)
    newcomers.note(ONE, ids(30_000))
    assert not newcomers.are_many(ONE)


def test_what_was_seen_before_does_not_count_again(newcomers: Newcomers) -> None:
    for _ in range(10):
        newcomers.note(ONE, ids(30_000))
    assert not newcomers.are_many(ONE)


def test_batches_of_publishable_keys_alone_are_held_back_once_these_have_brought_very_many_producers(
    clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_MOST_NEW_PRODUCERS", 1_000)
    admitted = Admission(None, cast("Any", None), clock)

    def held_back(key_kind: str, count: int) -> bool:
        batches = [Batch(producer=producer, sequence=1, floor=0, metrics=[]) for producer in ids(count)]
        return [admitted.holds_back(ONE, batch, key_kind) for batch in batches][-1]

    assert not held_back("secret", 20_000)
    assert not held_back("publishable", 1)
    assert held_back("publishable", 20_000)
    assert not held_back("secret", 20_000)
    assert not admitted.concerns(OTHER, "publishable")
