"""What a dashboard is made of: panels with their queries, and how queries are put together."""

from dataclasses import dataclass

#: The routes that take metrics.
INGESTION = 'route=~"/api/v1/(metrics|statsd|write)|/v1/metrics|/metrics/job.*"'


@dataclass(frozen=True)
class Query:
    """One or more lines of a panel."""

    expression: str
    #: a name, or a template such as `{{lane}}`
    legend: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One graph, or one number."""

    title: str
    #: Grafana's name of it
    unit: str
    queries: tuple[Query, ...]
    #: what it tells, in a sentence
    description: str
    is_number: bool = False


@dataclass(frozen=True, kw_only=True)
class Page:
    """A dashboard."""

    name: str
    title: str
    panels: tuple[Panel, ...]


def graph(title: str, unit: str, description: str, **lines: str) -> Panel:
    """`lines` are queries by their legend; `by_lane` means the legend `{{lane}}`."""
    queries = tuple(
        Query(expression, f"{{{{{name.removeprefix('by_')}}}}}" if name.startswith("by_") else name.replace("_", " "))
        for name, expression in lines.items()
    )
    return Panel(title=title, unit=unit, description=description, queries=queries)


def number(title: str, unit: str, description: str, expression: str) -> Panel:
    """One number, large."""
    return Panel(title=title, unit=unit, description=description, queries=(Query(expression, title),), is_number=True)


def quantile(rank: float, histogram: str, matchers: str = "", by: str = "") -> str:
    """A quantile of a histogram of Pulsegate's own; what a tenant sends under its name is left out."""
    labels = f"le, {by}" if by else "le"
    inside = f'tenant_id="",{matchers}' if matchers else 'tenant_id=""'
    grows = f"rate({histogram}_bucket{{{inside}}}[$__rate_interval])"
    return f"histogram_quantile({rank}, sum by ({labels}) ({grows}))"


def rate(counter: str, matchers: str = "", by: str = "") -> str:
    """What a counter of Pulsegate's own grows by a second."""
    inside = f'tenant_id="",{matchers}' if matchers else 'tenant_id=""'
    sums = f"sum by ({by})" if by else "sum"
    return f"{sums} (rate({counter}{{{inside}}}[$__rate_interval]))"


def zero_or(expression: str) -> str:
    """For what has not happened yet: a counter with labels does not exist until then."""
    return f"{expression} or vector(0)"
