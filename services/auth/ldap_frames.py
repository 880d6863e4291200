"""Where one message of an LDAP directory ends, and what of it may be decoded (RFC 4511, 5.1; X.690, 8.1).

A tenant chooses who its directory is, and what decodes the messages takes a time that grows with the square of the
length of tags and numbers, and remembers every code that it has seen. LDAP needs neither long tags nor long numbers.
"""

#: Of one message, and of all of a connection.
MOST_BYTES = 1 << 19
#: The same: each takes some microseconds to decode. A thousand groups have nine thousand.
MOST_PARTS = 12_000

_SEQUENCE, _INTEGER, _ENUMERATED = 0x30, 0x02, 0x0A
_CONSTRUCTED, _LONG_TAG, _CLASS = 0x20, 0x1F, 0xC0
_APPLICATION, _CONTEXT = 0x40, 0x80
_CONTROLS = _CONTEXT | _CONSTRUCTED
#: serverSaslCreds, responseName and responseValue: all other parts that LDAP has numbered in answers have parts.
_TEXTS_IN_CONTEXT = frozenset({_CONTEXT | 7, _CONTEXT | 10, _CONTEXT | 11})
_MOST_DEPTH = 10
_MOST_LENGTH_OCTETS = 4
_MOST_INTEGER_OCTETS = 4


class NotLdap(Exception):
    """Bytes that no directory sends."""

    def __init__(self) -> None:
        super().__init__("it says what is no LDAP")


def size_of(begun: bytes | bytearray) -> int | None:
    """The size of the message that begins here; None: not enough of it is there to say. Raises NotLdap."""
    if begun and begun[0] != _SEQUENCE:
        raise NotLdap
    if len(begun) < 2 or (begun[1] > 0x80 and len(begun) < 2 + (begun[1] & 0x7F)):
        if len(begun) > 2 + _MOST_LENGTH_OCTETS:
            raise NotLdap
        return None
    header, length = _header(memoryview(begun))
    if header + length > MOST_BYTES:
        raise NotLdap
    return header + length


def require_plain(message: bytes, most: int = MOST_PARTS) -> int:
    """How many parts a message has. Raises NotLdap where it has more, or parts that no answer of a directory has."""
    return _require_plain(memoryview(message), _MOST_DEPTH, most)


def without_controls(message: bytes) -> bytes:
    """A plain message without what a directory adds to its answer, unasked (RFC 4511, 4.1.11).

    What a control says is a message inside of a text, which would be decoded too.
    """
    rest, kept = memoryview(message), bytearray()
    header, _ = _header(rest)
    rest = rest[header:]
    while rest:
        header, length = _header(rest)
        if rest[0] != _CONTROLS:
            kept += rest[: header + length]
        rest = rest[header + length :]
    return bytes([_SEQUENCE, 0x80 | _MOST_LENGTH_OCTETS]) + len(kept).to_bytes(_MOST_LENGTH_OCTETS) + kept


def _require_plain(parts: memoryview, depth: int, most: int) -> int:
    count = 0
    while parts:
        header, length = _header(parts)
        tag, end = parts[0], header + length
        count += 1
        if depth == 0 or count > most or end > len(parts) or not _is_plain(tag, length):
            raise NotLdap
        if tag & _CONSTRUCTED:
            count += _require_plain(parts[header:end], depth - 1, most - count)
        parts = parts[end:]
    return count


def _is_plain(tag: int, length: int) -> bool:
    if tag & _LONG_TAG == _LONG_TAG:
        return False
    if tag == _INTEGER:
        return length <= _MOST_INTEGER_OCTETS
    if tag == _ENUMERATED:
        return length == 1
    if tag & _CONSTRUCTED:
        return True
    # Parts without the bit that says that they have parts would be decoded as if they had it.
    return (tag & _CLASS == 0 and tag | _CONSTRUCTED != _SEQUENCE) or tag in _TEXTS_IN_CONTEXT


def _header(part: memoryview) -> tuple[int, int]:
    """The lengths of a part's header and of the rest. Raises NotLdap."""
    if len(part) < 2:
        raise NotLdap
    octets = part[1] & 0x7F if part[1] & 0x80 else 0
    if part[1] == 0x80 or octets > _MOST_LENGTH_OCTETS or len(part) < 2 + octets:
        raise NotLdap
    length = int.from_bytes(part[2 : 2 + octets], "big") if octets else part[1]
    return 2 + octets, length
