"""What a directory chooses to say does not choose how long it is decoded."""

import asyncio
import time
from typing import cast

import pytest
from sansldap import LDAPResultCode

from services.auth.ldap import Connection
from services.auth.ldap_filters import LOGIN, filled

_PAGED_RESULTS = b"1.2.840.113556.1.4.319"
_LONG_NUMBER = b"\x01" * 500_000


class _Nowhere:
    """What is said to the directory."""

    def write(self, data: bytes) -> None:
        assert data

    async def drain(self) -> None:
        """At once."""


def _part(tag: int, *inner: bytes) -> bytes:
    value = b"".join(inner)
    return bytes([tag, 0x84]) + len(value).to_bytes(4) + value


def _paged(size: bytes) -> bytes:
    return _part(0x30, _part(0x04, _PAGED_RESULTS), _part(0x04, _part(0x30, _part(0x02, size), _part(0x04))))


def _answer(operation: int, *controls: bytes) -> bytes:
    """A success."""
    result = _part(operation, _part(0x0A, b"\0"), _part(0x04), _part(0x04))
    return _part(0x30, _part(0x02, b"\1"), result, _part(0xA0, *controls))


def _connection(answer: bytes) -> Connection:
    reader = asyncio.StreamReader()
    reader.feed_data(answer)
    return Connection(reader, cast("asyncio.StreamWriter", _Nowhere()))


@pytest.mark.parametrize("controls", [[_paged(_LONG_NUMBER)], [_paged(b"\1")] * 3990], ids=["a long one", "many"])
async def test_a_directory_does_not_choose_how_long_its_controls_are_decoded(controls: list[bytes]) -> None:
    """Nobody has asked for any: a number of half a megabyte in one takes twenty seconds."""
    binding = _connection(_answer(0x61, *controls))
    searching = _connection(_answer(0x65, *controls))
    begun = time.process_time()
    assert await binding.bind("cn=eve", "password") is LDAPResultCode.SUCCESS
    found = await searching.search("dc=example", filled("(uid={login})", {LOGIN: "eve"}), ["mail"], most=1)
    assert not found.entries
    assert time.process_time() - begun < 0.5
