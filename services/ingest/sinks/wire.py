"""Protobuf's wire format, as far as messages are built by hand.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterable
from struct import Struct

_float64 = Struct("<d")


def varint(value: int) -> bytes:
    """A whole number of 0 or more."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def zigzag(value: int) -> int:
    """A whole number of either sign, as `sint32` and `sint64` carry it."""
    return value << 1 if value >= 0 else (-value << 1) - 1


def length_delimited(number: int, content: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return bytes((number << 3 | 2,)) + varint(len(content)) + content


def whole(number: int, value: int) -> bytes:
    """A field of a whole number of 0 or more."""
    return bytes((number << 3,)) + varint(value)


def double(number: int, value: float) -> bytes:
    """A field of a 64-bit float."""
    return bytes((number << 3 | 1,)) + _float64.pack(value)


def packed(number: int, values: Iterable[int]) -> bytes:
    """A repeated field of whole numbers of 0 or more."""
    return length_delimited(number, b"".join(map(varint, values)))
