"""PromQL expressions: which metrics they read, with which matchers, and which labels they keep."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import promql_parser as parser
from prometheus_client import Counter, Gauge, Histogram

from deploy.local.layout import CHECKOUT


@dataclass(frozen=True, kw_only=True)
class Selector:
    """One metric as an expression reads it; `matchers` as they are written."""

    name: str
    matchers: frozenset[str]


def selectors(expression: str) -> list[Selector]:
    """Every selector. Raises ValueError where it is no expression, or where a selector names no metric."""
    return list(_selectors(parser.parse(expression)))


def _selectors(node: Any) -> Iterator[Selector]:
    if isinstance(node, parser.MatrixSelector):
        node = node.vector_selector
    if isinstance(node, parser.VectorSelector):
        if not node.name:
            raise ValueError("a selector names no metric")
        yield Selector(
            name=node.name, matchers=frozenset(f'{each.name}="{each.value}"' for each in node.matchers.matchers)
        )
        return
    for attribute in ("expr", "lhs", "rhs", "param"):
        if (child := getattr(node, attribute, None)) is not None:
            yield from _selectors(child)
    for argument in getattr(node, "args", None) or []:
        yield from _selectors(argument)


def keeps(expression: str, label: str) -> bool:
    """Whether what it answers still has that label, of one of its selectors at least."""
    return _keeps(parser.parse(expression), label)


def _keeps(node: Any, label: str) -> bool:
    if isinstance(node, parser.VectorSelector | parser.MatrixSelector):
        return True
    if isinstance(node, parser.AggregateExpr) and str(node.op) not in {"topk", "bottomk"}:
        return node.modifier is not None and label in node.modifier.labels and _keeps(node.expr, label)
    children = [getattr(node, attribute, None) for attribute in ("expr", "lhs", "rhs")]
    return any(_keeps(child, label) for child in [*children, *(getattr(node, "args", None) or [])] if child is not None)


def metrics_in_code() -> Iterator[str]:
    """The names of all series that Prometheus scrapes of Pulsegate."""
    for path in [CHECKOUT / "chassis/metrics.py", *CHECKOUT.glob("services/*/metrics.py")]:
        module = import_module(".".join(path.relative_to(CHECKOUT).with_suffix("").parts))
        for value in vars(module).values():
            if isinstance(value, Counter | Gauge | Histogram):
                yield from _exposed_names(value)


def _exposed_names(metric: Counter | Gauge | Histogram) -> set[str]:
    """The names of the series that Prometheus scrapes of a metric."""
    (family,) = metric.describe()
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
    return {family.name + ending for ending in endings}
