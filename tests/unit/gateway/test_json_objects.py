"""JSON objects of requests: what is one, and what a large one costs those who wait beside it."""

import gc
import sys
import time
from contextlib import suppress

import pytest

from chassis.errors import Invalid, Malformed
from services.gateway.http_api.json_objects import json_object

#: The largest object that any route takes.
_BYTES = 256 << 10
_MOST_SECONDS = 0.05


def _of(beginning: bytes, part: bytes, end: bytes) -> bytes:
    """As many parts as fit."""
    return beginning + b",".join([part] * ((_BYTES - len(beginning) - len(end)) // (len(part) + 1))) + end


def test_members_at_fault_are_named_where_they_are() -> None:
    body = rb'{"a": "\u0000", "b": [{"c": ["x", "\u0000"]}, {"d\u0000": 1}], "e": "\\u0000", "f": "\ud83d\ude00"}'
    with pytest.raises(Invalid) as refused:
        json_object(body)
    assert set((refused.value.details or {})["fields"]) == {"a", "b[0].c[1]", "b[1]"}


@pytest.mark.parametrize("text", [rb"\ud83d", rb"\uDE00", rb"\ude00\ud83d"])
def test_half_a_surrogate_pair_is_no_text(text: bytes) -> None:
    for body in (b'{"a": [{"b": "%s"}]}' % text, b'{"a": {"%s": 1}}' % text):
        with pytest.raises(Malformed):
            json_object(body)


@pytest.mark.alone
@pytest.mark.parametrize(
    "body",
    [
        _of(b'{"a": [', b"0", b"]}"),
        _of(b'{"a": ["\\ud83d\\ude00", ', b"0", b"]}"),
        _of(b'{"a": ["\\ud83d\\ude00", ', b'""', b"]}"),
        _of(b'{"a": ["\\ud83d\\ude00", ', b"[0]", b"]}"),
        _of(b'{"a": ["\\u0000", ', b"{}", b"]}"),
        _of(b'{"a": [', b'"\\u0000"', b"]}"),
        _of(b'{"a": ["\\ud83d\\ude00", ', b'{"":""}', b"]}"),
        b'{"":' * 900 + b"{" + b",".join(b'"\\u0000%x":0' % number for number in range(10_000)) + b"}" * 901,
    ],
    ids=["numbers", "numbers walked", "texts", "lists", "objects", "faults", "members", "nameless"],
)
def test_no_object_of_the_largest_size_keeps_others_waiting(body: bytes) -> None:
    """Without the collector of garbage, which goes over all that this process of tests has, and without the tracer that
    measures coverage, which doubles the time."""
    tracer = sys.gettrace()
    gc.disable()
    sys.settrace(None)
    try:
        took = min(_seconds(body) for _ in range(5))
    finally:
        sys.settrace(tracer)
        gc.enable()
    assert took < _MOST_SECONDS


def _seconds(body: bytes) -> float:
    began = time.thread_time()
    with suppress(Invalid):
        json_object(body)
    return time.thread_time() - began
