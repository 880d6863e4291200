"""Errors and how they are written for the wire."""

import msgspec
import pytest

from chassis import errors
from chassis.errors import Forbidden, Internal, Invalid, PulsegateError, from_wire, to_wire

KINDS = [kind for kind in PulsegateError.__subclasses__() if kind.__module__ == "chassis.errors"]


@pytest.mark.parametrize("kind", KINDS, ids=[kind.kind for kind in KINDS])
def test_every_kind_crosses_the_wire_whole(kind: type[PulsegateError]) -> None:
    sent = kind("Too fast.", code="SPECIAL", details={"fields": {"a": [1, None, "é"]}}, retry_after_seconds=1.5)
    received = from_wire(to_wire(sent))
    assert type(received) is kind
    assert vars(received) == vars(sent)


def test_every_kind_has_its_statuses() -> None:
    assert {kind.kind for kind in KINDS} == set(errors.STATUSES)


def test_a_services_own_error_arrives_as_its_kind_with_its_code() -> None:
    class TooManyThings(Invalid):
        code = "TOO_MANY_THINGS"

    received = from_wire(to_wire(TooManyThings("There are too many.")))
    assert (type(received), received.code, received.http_status) == (Invalid, "TOO_MANY_THINGS", 422)


def test_all_members_at_fault_are_named() -> None:
    error = Invalid.fields({"name": "must be short", "labels[2].name": "must be there"})
    assert error.details == {"fields": {"name": "must be short", "labels[2].name": "must be there"}}
    assert "labels[2].name: must be there" in error.message


@pytest.mark.parametrize("character", ["a", "é", "\U0001f600", "\0", '"'])
@pytest.mark.parametrize("length", [999, 5_900, 50_000])
def test_what_is_too_large_is_cut_and_stays_readable(character: str, length: int) -> None:
    encoded = to_wire(Forbidden(character * length, details={"fields": {"name": character * length}}))
    assert len(encoded) <= errors.MOST_WIRE_BYTES
    received = from_wire(encoded)
    assert (type(received), received.code) == (Forbidden, "FORBIDDEN")


def test_a_kind_that_this_version_does_not_know_is_internal() -> None:
    assert type(from_wire(b'{"kind":"newer","code":"NEW","message":"m"}')) is Internal


def test_garbage_is_not_an_error() -> None:
    with pytest.raises(msgspec.DecodeError):
        from_wire(b"garbage")
