"""The text of an API key: `pk_` or `sk_`, random base62 characters, and a checksum.

The checksum (CRC-32 of everything before it, six base62 characters) is no secret: it lets the gateway refuse a typing
error without asking anybody, and a scanner for leaked secrets tell a key from a look-alike. What identifies a key
between services and at rest is the SHA-256 of its text.
"""

import hashlib
import re
import zlib
from typing import Literal

KeyKind = Literal["publishable", "secret"]

PUBLISHABLE_PREFIX = "pk_"
SECRET_PREFIX = "sk_"  # noqa: S105 - what secret keys begin with, not one
#: Of an identity provider's provisioning token, which ends with a checksum too.
PROVISIONING_PREFIX = "pt_"

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

#: Random characters of a key: 190 bits.
RANDOM_CHARACTERS = 32

#: Any CRC-32 fits into six base62 characters.
_CHECKSUM_CHARACTERS = 6

_MOST_CHARACTERS = 100

_KINDS: dict[str, KeyKind] = {PUBLISHABLE_PREFIX: "publishable", SECRET_PREFIX: "secret"}
_FORMAT = re.compile(rf"(?:{'|'.join(_KINDS)})[0-9A-Za-z]{{{RANDOM_CHARACTERS + _CHECKSUM_CHARACTERS}}}")


def kind_of(text: str) -> KeyKind | None:
    """The kind of a key whose format and checksum are right, else None."""
    if not _FORMAT.fullmatch(text):
        return None
    stem = text[:-_CHECKSUM_CHARACTERS]
    return _KINDS[text[:3]] if with_checksum(stem) == text else None


def is_sound(text: str) -> bool:
    """Whether a secret of this form, whatever its prefix, ends with its checksum."""
    return text.isascii() and len(text) <= _MOST_CHARACTERS and with_checksum(text[:-_CHECKSUM_CHARACTERS]) == text


def with_checksum(stem: str) -> str:
    """A prefix and its random characters, completed to a key."""
    rest = zlib.crc32(stem.encode("ascii"))
    checksum = ""
    for _ in range(_CHECKSUM_CHARACTERS):
        rest, digit = divmod(rest, len(BASE62))
        checksum = BASE62[digit] + checksum
    return stem + checksum


def digest(text: str) -> bytes:
    """The SHA-256 by which a key is known between services and at rest."""
    return hashlib.sha256(text.encode("utf-8")).digest()
