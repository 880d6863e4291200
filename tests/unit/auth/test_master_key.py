"""Encryption at rest and the derivation of successors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.master_key import MasterKey, WrongMasterKey
from services.auth.tokens import RefreshTokens

KEY = MasterKey(bytes(range(32)))
OTHER = MasterKey(bytes(32))


@given(st.binary(), st.text())
def test_what_is_sealed_is_unsealed_for_its_owner(plaintext: bytes, owner: str) -> None:
    sealed = KEY.seal(plaintext, owner=owner)

    assert KEY.unseal(sealed, owner=owner) == plaintext
    assert KEY.seal(plaintext, owner=owner) != sealed


@pytest.mark.parametrize("position", [0, 11, 12, -1])
def test_an_edited_row_cannot_be_unsealed(position: int) -> None:
    sealed = bytearray(KEY.seal(b"private", owner="row"))
    sealed[position] ^= 1

    with pytest.raises(WrongMasterKey):
        KEY.unseal(bytes(sealed), owner="row")


def test_neither_another_key_nor_another_row_unseals_it() -> None:
    sealed = KEY.seal(b"private", owner="row")

    with pytest.raises(WrongMasterKey):
        OTHER.unseal(sealed, owner="row")
    with pytest.raises(WrongMasterKey):
        KEY.unseal(sealed, owner="another row")


def test_a_successor_follows_from_the_spent_token_and_the_master_key_alone() -> None:
    tokens = RefreshTokens(KEY)
    spent = tokens.first()

    assert tokens.successor(spent) == RefreshTokens(MasterKey(bytes(range(32)))).successor(spent)
    assert tokens.successor(spent) != RefreshTokens(OTHER).successor(spent)
    assert len({spent, tokens.successor(spent), tokens.successor(tokens.successor(spent)), tokens.first()}) == 4


def test_refresh_tokens_carry_256_bits() -> None:
    tokens = RefreshTokens(KEY)

    for token in (tokens.first(), tokens.successor(tokens.first())):
        assert token.startswith("rt_")
        assert len(token) == 3 + 43
