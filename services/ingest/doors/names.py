"""Foreign names in the characters that Prometheus takes, and what a request may not make its points carry along.

A name or value that a request holds once can belong to each of its points. Names that no definition can have are
therefore refused, and values cut, before anything is done for a point; keys of the caches here are short by it.
"""

import re
from functools import lru_cache

from services.ingest.domain import MOST_LABEL_VALUE_BYTES, MOST_NAME_LENGTH, Fault

NAME_TOO_LONG = Fault("METRIC_MALFORMED", f"A metric's name has at most {MOST_NAME_LENGTH} characters.")

_OTHERS = re.compile(r"[^a-zA-Z0-9_]")


@lru_cache(maxsize=16_384)
def cleaned(name: str) -> str:
    """The name, which is short, with an underscore for each other character, and one before a digit at its start."""
    found = _OTHERS.sub("_", name)
    return f"_{found}" if found[:1].isdigit() else found


def as_counter(name: str) -> str:
    """A counter's name, which ends in `_total`."""
    return name if name.endswith("_total") else f"{name}_total"


def clipped(text: str) -> str:
    """A label's name or value, or so much of it that it is refused as too long, or unknown, as the whole would be."""
    return text if len(text) <= MOST_LABEL_VALUE_BYTES else text[: MOST_LABEL_VALUE_BYTES + 1]
