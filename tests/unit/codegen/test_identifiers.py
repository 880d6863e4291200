"""Names of generated methods and parameters: legal, free, and following from one name alone."""

import re

import pytest
from hypothesis import given

from services.codegen.outputters.identifiers import PYTHON_KEYWORDS, camel_case, free, public
from tests.unit.codegen.samples import names

_TAKEN = PYTHON_KEYWORDS | {"record", "toString"}


def _in_python(name: str) -> str:
    return free(public(name), _TAKEN)


def _in_javascript(name: str) -> str:
    return camel_case(name, _TAKEN)


@pytest.mark.parametrize(
    ("name", "spelt"),
    [
        ("checkout_completed_total", "checkoutCompletedTotal"),
        ("jobs", "jobs"),
        ("http_2_requests", "http_2Requests"),
        ("http2_requests", "http2Requests"),
        ("HTTP_requests_total", "HTTP_requests_total_"),
        ("alreadyCamel", "alreadyCamel_"),
        ("already_camel", "alreadyCamel"),
        ("a__b_", "a__b__"),
        ("_jobs_total", "metric__jobs_total_"),
        ("record", "record_"),
        ("to_string", "to_string_"),
        ("toString", "toString_"),
    ],
)
def test_javascript_spells_names_in_camel_case_and_keeps_them_apart(name: str, spelt: str) -> None:
    assert _in_javascript(name) == spelt


@pytest.mark.parametrize(
    ("name", "spelt"),
    [("class", "class_"), ("class_", "class__"), ("record", "record_"), ("jobs_", "jobs_"), ("_jobs", "metric__jobs")],
)
def test_python_keeps_names_that_are_legal_and_free(name: str, spelt: str) -> None:
    assert _in_python(name) == spelt


@given(names, names)
def test_every_name_is_legal_and_no_two_are_alike(one: str, other: str) -> None:
    for spell in (_in_python, _in_javascript):
        spelt = spell(one)
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", spelt)
        assert spelt not in _TAKEN
        assert (spelt == spell(other)) == (one == other)


#: Names that are made to be alike once underscores and capitals are treated.
_ALIKE = ["a_b", "aB", "a__b", "a_b_", "aB_", "_a_b", "metric_a_b", "metric__a_b", "metric_metric__a_b", "a_1", "a1"]
_ALIKE += ["class", "class_", "class__", "to_string", "toString", "to_string_", "toString_", "record", "record_"]


def test_names_that_differ_little_stay_apart() -> None:
    for spell in (_in_python, _in_javascript):
        assert len(set(map(spell, _ALIKE))) == len(_ALIKE)
