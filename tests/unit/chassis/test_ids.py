"""Identifiers."""

import time
import uuid
from collections.abc import Callable

import pytest

from chassis.ids import is_uuid, uuid7, uuid7_text


@pytest.mark.parametrize("make", [uuid7, lambda: uuid.UUID(uuid7_text())])
def test_ids_are_uuids_of_version_7_with_the_time_in_front(make: Callable[[], uuid.UUID]) -> None:
    before = time.time_ns() // 1_000_000
    made = make()
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000
    assert is_uuid(str(made))


def test_many_ids_at_once_differ() -> None:
    assert len({str(uuid7()) for _ in range(10_000)} | {uuid7_text() for _ in range(10_000)}) == 20_000


def test_other_spellings_are_not_ids() -> None:
    canonical = str(uuid7())
    for text in ("", canonical.upper(), canonical.replace("-", ""), f"{{{canonical}}}", f"{canonical}\n"):
        assert not is_uuid(text)
