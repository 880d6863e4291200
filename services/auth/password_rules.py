"""Which passwords are refused although they are long enough: those that a guesser tries first.

zxcvbn estimates how many guesses one takes, from lists of passwords that were breached, of words and of names. Long
passwords that many people have are rarely one word, though: they are a common word with digits behind it, two common
words, a row of the keyboard, something short repeated, or the e-mail address. These are refused by rules over a short
list of words (`common_words.txt`, ours), whatever the estimate says.
"""

import re
import unicodedata
from functools import cache
from math import prod
from pathlib import Path

from zxcvbn import zxcvbn
from zxcvbn.matching import L33T_TABLE

from services.auth.passwords import PasswordHasher, length_fault

_WORDS_FILE = Path(__file__).parent / "common_words.txt"

#: Rows of keyboards, the alphabet and the digits; either way round, any part of them, also going round.
_ROWS = (
    "abcdefghijklmnopqrstuvwxyz",
    "12345678901234567890",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    "1q2w3e4r5t6y7u8i9o0p",
    "qawsedrftgyhujikolp",
    "qazwsxedcrfvtgbyhnujmikolp",
    "zaq12wsxcde34rfvbgt56yhn",
)
#: A part of a row counts from this length on.
_SHORTEST_RUN = 4

#: What people write for a letter.
_LOOK_ALIKES = str.maketrans("013457@$!", "oieastasi")
#: The digits of an American keyboard, where somebody held the shift key.
_UNSHIFTED = str.maketrans("!@#$%^&*()", "1234567890")
_NOT_LETTERS = re.compile(r"[\W\d_]+")
_AROUND_LETTERS = re.compile(r"^[\W\d_]+|[\W\d_]+$")

#: So many common words alone make no password.
_MOST_COMMON_WORDS = 2

#: What zxcvbn calls "safely unguessable": moderate protection where a slow hash was stolen.
_LEAST_GUESSES = 1e8
#: So many characters are estimated, in so many readings: about 20 ms at worst, which would be seconds for all.
_MOST_ESTIMATED = 24
_MOST_READINGS = 24
#: A text with more is estimated as if its look-alikes were the letters, the first of several in the alphabet.
_ONE_READING = {ord(sign): letter for letter, signs in reversed(L33T_TABLE.items()) for sign in signs}

_SOON_GUESSED = "is among the first that a guesser tries; use several unrelated words"

#: Different characters that a password has at least.
_LEAST_VARIETY = 5


async def judged(password: str, email: str, hasher: PasswordHasher) -> str | None:
    """As `password_fault`; the estimate is made on the hasher's threads. Raises TooManyPasswords."""
    return _obvious_fault(password, email) or await hasher.on_thread(lambda: _estimated_fault(password, email))


def password_fault(password: str, email: str) -> str | None:
    """What is wrong with a new password, or None."""
    return _obvious_fault(password, email) or _estimated_fault(password, email)


def _obvious_fault(password: str, email: str) -> str | None:
    if fault := length_fault(password):
        return fault
    plain = unicodedata.normalize("NFKD", password).casefold()
    if len(set(plain)) < _LEAST_VARIETY or _is_repetition(plain):
        return "must not repeat a few characters over and over"
    if _says_only(plain, _parts_of(email)):
        return "must not be made from your e-mail address"
    return _SOON_GUESSED if _consists_of_common_parts(plain) else None


def _estimated_fault(password: str, email: str) -> str | None:
    text = password[:_MOST_ESTIMATED]
    if _readings(text) > _MOST_READINGS:
        text = text.translate(_ONE_READING)
    estimate = zxcvbn(text, user_inputs=sorted(_parts_of(email)))
    return _SOON_GUESSED if float(estimate["guesses"]) < _LEAST_GUESSES else None


def _readings(text: str) -> int:
    """In how many ways zxcvbn reads the look-alikes in a text as letters, each of which it looks through."""
    present = set(text)
    return prod(max(1, len(present.intersection(look_alikes))) for look_alikes in L33T_TABLE.values())


def _is_repetition(plain: str) -> bool:
    """Whether it is something of at most a third of its length again and again, the last time perhaps in part."""
    return any(plain == (plain[:period] * len(plain))[: len(plain)] for period in range(1, len(plain) // 3 + 1))


def _parts_of(email: str) -> frozenset[str]:
    """The address, what stands before and after its @, and the words in these."""
    plain = unicodedata.normalize("NFKD", email).casefold()
    local, _, domain = plain.partition("@")
    words = _NOT_LETTERS.split(plain)
    return frozenset(part for part in (plain, local, domain, *words) if len(part) >= _SHORTEST_RUN)


def _says_only(plain: str, parts: frozenset[str]) -> bool:
    """Whether nothing but digits, signs and a few letters is left once these parts are taken out."""
    rest = plain
    for part in sorted(parts, key=len, reverse=True):
        rest = rest.replace(part, "")
    return rest != plain and len(_NOT_LETTERS.sub("", rest)) < _SHORTEST_RUN


def _consists_of_common_parts(plain: str) -> bool:
    """Whether at most two common words and rows, with digits and signs anywhere, are all there is."""
    spellings = {
        plain,
        plain.translate(_LOOK_ALIKES),
        _AROUND_LETTERS.sub("", plain).translate(_LOOK_ALIKES),
        plain.translate(_UNSHIFTED),
    }
    return any(_is_common(_without_rows(spelling)) for spelling in spellings)


def _without_rows(plain: str) -> str:
    """Runs along a row taken out, as long ones as there are."""
    rest, position = "", 0
    while position < len(plain):
        length = _run_length(plain, position)
        if length >= _SHORTEST_RUN:
            rest += " "
            position += length
        else:
            rest += plain[position]
            position += 1
    return rest


def _run_length(plain: str, position: int) -> int:
    length = 0
    while position + length < len(plain) and any(plain[position : position + length + 1] in row for row in _all_rows()):
        length += 1
    return length


def _is_common(spelling: str) -> bool:
    return _common_words_in(_NOT_LETTERS.sub("", spelling)) <= _MOST_COMMON_WORDS


def _common_words_in(letters: str) -> float:
    """How few common words the letters are made of; infinite where they are not. None at all: 0."""
    fewest: list[float] = [0.0]
    for end in range(1, len(letters) + 1):
        fewest.append(
            min((fewest[begin] + 1 for begin in range(end) if letters[begin:end] in _words()), default=float("inf"))
        )
    return fewest[-1]


@cache
def _all_rows() -> tuple[str, ...]:
    forwards = tuple(row + row for row in _ROWS)
    return forwards + tuple(row[::-1] for row in forwards)


@cache
def _words() -> frozenset[str]:
    return frozenset(word for line in _WORDS_FILE.read_text(encoding="utf-8").splitlines() for word in line.split())
