"""E-mail addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.emails import MOST_EMAIL_CHARACTERS, email_key
from chassis.errors import Invalid


@given(st.emails())
def test_an_address_is_the_same_whatever_its_case(email: str) -> None:
    assert email_key(email.upper()) == email_key(email.lower()) == email_key(f" {email} ")
    assert email_key(email_key(email)) == email_key(email)


def test_letters_of_other_widths_and_fonts_are_the_same_letter() -> None:
    spellings = ["victim@example.com", "\uff56ictim@example.com", "\U0001d42fictim@example.com", "VICTIM@example.com"]
    assert len({email_key(spelling) for spelling in spellings}) == 1


def test_what_is_too_long_for_an_address_is_refused_before_it_is_normalised() -> None:
    most = "a" + "\u0301\u0316" * (MOST_EMAIL_CHARACTERS // 2 - 1) + "b"
    assert email_key(f" {most} ")
    with pytest.raises(Invalid, match="at most 254 characters"):
        email_key(most + "c")
    with pytest.raises(Invalid):
        email_key(most * 100_000)  # which would take hours


def test_domains_with_different_owners_are_different() -> None:
    assert email_key("ada@straße.example") != email_key("ada@strasse.example")
    assert email_key("ada@MÜNCHEN.example") == email_key("ada@mu\u0308nchen.example")
