"""The text of an API key."""

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis import api_keys

STEMS = st.builds(
    lambda prefix, random: prefix + random,
    st.sampled_from(["pk_", "sk_"]),
    st.text(alphabet=api_keys.BASE62, min_size=api_keys.RANDOM_CHARACTERS, max_size=api_keys.RANDOM_CHARACTERS),
)
KEYS = STEMS.map(api_keys.with_checksum)


@given(STEMS)
def test_a_key_with_its_checksum_tells_its_kind(stem: str) -> None:
    key = api_keys.with_checksum(stem)

    assert api_keys.kind_of(key) == {"pk_": "publishable", "sk_": "secret"}[stem[:3]]
    assert len(key) == 3 + 32 + 6


@given(KEYS, st.data())
def test_any_one_wrong_character_is_found(key: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(key) - 1))
    wrong = data.draw(st.sampled_from([c for c in string.printable if c != key[position]]))

    assert api_keys.kind_of(key[:position] + wrong + key[position + 1 :]) is None


@given(KEYS, st.data())
def test_two_characters_in_the_wrong_order_are_found(key: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(3, len(key) - 2))
    swapped = key[:position] + key[position + 1] + key[position] + key[position + 2 :]

    assert api_keys.kind_of(swapped) == (None if swapped != key else api_keys.kind_of(key))


@given(st.text())
def test_any_other_text_is_no_key(text: str) -> None:
    assert api_keys.kind_of(text) is None


@pytest.mark.parametrize("around", [" {}", "{} ", "{}\n", "Bearer {}", "{}0"])
def test_a_key_with_anything_around_it_is_no_key(around: str) -> None:
    assert api_keys.kind_of(around.format(api_keys.with_checksum("sk_" + "a" * 32))) is None


def test_the_format_stays_as_it_is_in_the_wild() -> None:
    assert api_keys.with_checksum("pk_" + "0" * 32) == "pk_" + "0" * 32 + "0sTLlr"


def test_a_key_is_known_by_the_sha256_of_its_text() -> None:
    assert api_keys.digest("sk_x") == hashlib.sha256(b"sk_x").digest()
