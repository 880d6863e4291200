"""E-mail addresses."""

from hypothesis import given
from hypothesis import strategies as st

from chassis.emails import email_key


@given(st.emails())
def test_an_address_is_the_same_whatever_its_case(email: str) -> None:
    assert email_key(email.upper()) == email_key(email.lower()) == email_key(f" {email} ")
    assert email_key(email_key(email)) == email_key(email)


def test_letters_of_other_widths_and_fonts_are_the_same_letter() -> None:
    spellings = ["victim@example.com", "\uff56ictim@example.com", "\U0001d42fictim@example.com", "VICTIM@example.com"]
    assert len({email_key(spelling) for spelling in spellings}) == 1
