"""Names in generated code. Each follows from the metric's or label's name alone, and no two are alike.

So a definition that is added, deleted or made anew never changes what older code calls, nor which metric it counts in.
"""

import keyword
import re
from collections.abc import Collection

PYTHON_KEYWORDS = frozenset(keyword.kwlist)

#: Lower case and single underscores: what camel case can be told back from.
_SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_PRIVATE = re.compile(r"(metric_)*_")


def public(name: str) -> str:
    """The name without a leading underscore, which would make it private: `_jobs` becomes `metric__jobs`.

    What looks like such a name already gets one more `metric_`.
    """
    return f"metric_{name}" if _PRIVATE.match(name) else name


def free(name: str, taken: Collection[str]) -> str:
    """The name, with an underscore after it where it is taken, or would be without those at its end."""
    return f"{name}_" if name.rstrip("_") in taken else name


def camel_case(name: str, taken: Collection[str]) -> str:
    """`checkout_completed_total` becomes `checkoutCompletedTotal`.

    A name that is not in snake case, or whose camel case is taken, is kept with an underscore after it, for camel case
    has none there. A digit keeps the underscore before it.
    """
    camel = re.sub(r"_([a-z])", lambda found: found[1].upper(), name)
    return camel if _SNAKE_CASE.fullmatch(name) and camel not in taken else f"{public(name)}_"
