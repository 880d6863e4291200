"""Foreign names in the characters that Prometheus takes."""

import re
from functools import lru_cache

_OTHERS = re.compile(r"[^a-zA-Z0-9_]")


@lru_cache(maxsize=16_384)
def cleaned(name: str) -> str:
    """The name with an underscore for each other character, and one before a digit at its start."""
    found = _OTHERS.sub("_", name)
    return f"_{found}" if found[:1].isdigit() else found


def as_counter(name: str) -> str:
    """A counter's name, which ends in `_total`."""
    return name if name.endswith("_total") else f"{name}_total"
