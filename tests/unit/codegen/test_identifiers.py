"""Names of generated methods and parameters: legal, free, and never renamed by what comes later."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.codegen.outputters.identifiers import PYTHON_KEYWORDS, assign, camel_case, public
from tests.unit.codegen.samples import names


@pytest.mark.parametrize(
    ("name", "spelt"),
    [
        ("checkout_completed_total", "checkoutCompletedTotal"),
        ("jobs", "jobs"),
        ("http_2_requests", "http2Requests"),
        ("HTTP_requests_total", "HTTPRequestsTotal"),
        ("alreadyCamel", "alreadyCamel"),
        ("a__b_", "aB"),
        ("_jobs_total", "metricJobsTotal"),
        ("_1", "metric1"),
        ("_", "metric"),
    ],
)
def test_camel_case(name: str, spelt: str) -> None:
    assert camel_case(name) == spelt


def test_the_older_of_two_that_would_be_spelt_alike_keeps_the_name() -> None:
    assert assign(["a_b", "aB", "a__b"], camel_case, ()) == {"a_b": "aB", "aB": "aB_", "a__b": "aB__"}
    assert assign(["aB", "a_b"], camel_case, ()) == {"aB": "aB", "a_b": "aB_"}


def test_a_name_that_is_taken_gets_an_underscore() -> None:
    assert assign(["class", "class_", "record"], public, PYTHON_KEYWORDS | {"record"}) == {
        "class": "class_",
        "class_": "class__",
        "record": "record_",
    }


@settings(deadline=None)
@given(st.lists(names, unique=True), names)
def test_every_name_is_legal_and_its_own_and_a_newer_one_changes_none(older: list[str], newer: str) -> None:
    taken = PYTHON_KEYWORDS | {"record"}
    for spell in (public, camel_case):
        assigned = assign(older, spell, taken)
        assert len(set(assigned.values())) == len(older)
        assert not set(assigned.values()) & taken
        assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", identifier) for identifier in assigned.values())
        if newer not in older:
            assert assigned.items() <= assign([*older, newer], spell, taken).items()
