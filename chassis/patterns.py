"""Patterns of label values, in RE2's syntax: matching takes time linear in the value, whatever the pattern.

Python's `re` backtracks, so that one tenant's pattern could hold up everybody's ingestion.
"""

from typing import Any

import re2

#: Bytes of a pattern's text (UTF-8).
MOST_PATTERN_BYTES = 500

#: What one compiled pattern may take, its matcher's states included.
_MOST_MEMORY_BYTES = 128 << 10


class PatternError(ValueError):
    """The pattern cannot be used; the text says why, in words for its author."""


class Pattern:
    """A compiled pattern, which a value must match as a whole."""

    def __init__(self, text: str) -> None:
        """Raises PatternError where the text is too long, is not RE2 or would need too much memory."""
        if len(text.encode()) > MOST_PATTERN_BYTES:
            raise PatternError(f"is longer than {MOST_PATTERN_BYTES} bytes")
        options = re2.Options()
        options.max_mem = _MOST_MEMORY_BYTES
        options.log_errors = False
        try:
            self._compiled: Any = re2.compile(text, options)  # type: ignore[no-untyped-call]
        except re2.error as error:
            reason = error.args[0].decode(errors="replace") if error.args else "unknown"
            raise PatternError(f"is not an RE2 expression: {reason}") from error

    @property
    def steps(self) -> int:
        """How long its program is, to which the time goes that compiling it takes."""
        return int(self._compiled.programsize)

    def matches(self, value: str) -> bool:
        """Whether the whole value matches."""
        return self._compiled.fullmatch(value) is not None
