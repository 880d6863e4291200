"""Templates: sandboxed, strict, and told how to write somebody's text into code of a language."""

import textwrap
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"

#: Categories that no reader sees, or that reorder what is seen: controls, formats (bidirectional overrides),
#: surrogates, private use, unassigned, line and paragraph separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

_COMMENT_CHARACTERS = 100


def environment(language: str, filters: Mapping[str, Callable[..., str]]) -> SandboxedEnvironment:
    """The templates of one language. Nothing is escaped by itself: each text goes through the filter of its place."""
    made = SandboxedEnvironment(
        loader=FileSystemLoader(TEMPLATES / language),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # this makes code, not HTML
        auto_reload=False,
    )
    made.filters.update(filters)
    return made


def readable_lines(text: str) -> list[str]:
    """The text as lines of a comment, with a space for whatever is invisible."""
    shown = "".join(" " if unicodedata.category(character) in _INVISIBLE else character for character in text)
    return textwrap.wrap(
        " ".join(shown.split()), _COMMENT_CHARACTERS, break_long_words=False, break_on_hyphens=False
    ) or [""]


def escape_invisible(text: str, escape: Callable[[int], str]) -> str:
    """The text with `escape(code point)` for whatever is invisible."""
    return "".join(
        escape(ord(character)) if unicodedata.category(character) in _INVISIBLE else character for character in text
    )
