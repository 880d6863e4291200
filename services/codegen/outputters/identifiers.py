"""Names in generated code: every metric and label gets one that is legal, free, and stays its own."""

import keyword
from collections.abc import Callable, Collection, Iterable

PYTHON_KEYWORDS = frozenset(keyword.kwlist)


def assign(names: Iterable[str], spell: Callable[[str], str], taken: Collection[str]) -> dict[str, str]:
    """An identifier for each name: `spell(name)`, with as many `_` after it as it needs to be free.

    Earlier names come first: handed in by age, a new definition never renames what older code calls.
    """
    assigned: dict[str, str] = {}
    unavailable = set(taken)
    for name in names:
        identifier = spell(name)
        while identifier in unavailable:
            identifier += "_"
        unavailable.add(identifier)
        assigned[name] = identifier
    return assigned


def public(name: str) -> str:
    """The name without a leading underscore, which would make it private: `_jobs` becomes `metric_jobs`."""
    return f"metric{name}" if name.startswith("_") else name


def camel_case(name: str) -> str:
    """`checkout_completed_total` becomes `checkoutCompletedTotal`. What is already in capitals stays so."""
    first, *rest = [part for part in public(name).split("_") if part]
    return first + "".join(part[0].upper() + part[1:] for part in rest)
