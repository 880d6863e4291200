"""How an installation fares, on one page."""

from collections.abc import Iterator
from dataclasses import dataclass

from pulsegate.installation import Installation
from pulsegate.observation import Readiness, observed, readiness


@dataclass(frozen=True)
class _Figure:
    title: str
    expression: str
    unit: str = ""


_OBJECTIVES = 'pulsegate:objective_budget_left:ratio30d{tenant_id=""}'
#: One of a disk has the namespace of that disk, where several installations may have theirs.
_ALERTS = (
    'ALERTS{tenant_id="",alertname=~"Pulsegate.+",alertstate="firing"}'
    ' or ALERTS{alertname="PulsegateDiskFillingUp",tenant_id="",alertstate="firing"}'
)
_FIGURES = (
    _Figure("metrics accepted a second", 'sum(rate(pulsegate_ingest_metrics_accepted_total{tenant_id=""}[1m]))'),
    _Figure("behind, commits", 'max(pulsegate_log_lag_seconds{tenant_id=""})', " s"),
    _Figure("behind, the slowest sink", 'max(pulsegate_sink_delay_seconds{tenant_id=""})', " s"),
    _Figure("log filled", '100 * max(pulsegate_log_fill_ratio{tenant_id=""})', " %"),
    _Figure("live series", 'sum(pulsegate_aggregator_live_series{tenant_id=""})'),
    _Figure("lost, by the canary", 'max(pulsegate_canary_lost{tenant_id=""})'),
    _Figure("double, by the canary", 'max(pulsegate_canary_double{tenant_id=""})'),
)


def processes(installation: Installation) -> list[Readiness]:
    """The readiness of each."""
    return [readiness(name, address) for name, address in installation.processes.items()]


def lines(installation: Installation, found: list[Readiness]) -> Iterator[str]:
    """What a person reads."""
    for process in found:
        missing = "; ".join(f"{name}: {reason}" for name, reason in process.missing.items())
        yield f"{process.name:<28} {process.status:<9} {missing}".rstrip()
    yield ""
    for figure in _FIGURES:
        yield f"{figure.title:<28} {_value(installation, figure)}"
    for labels, left in observed(installation, _OBJECTIVES) or []:
        yield f"{'budget left, ' + labels['objective']:<28} {100 * left:.1f} %"
    for labels, _ in observed(installation, _ALERTS) or []:
        yield f"{'alert':<28} {labels['alertname']} ({labels.get('severity', '')})"


def _value(installation: Installation, figure: _Figure) -> str:
    answer = observed(installation, figure.expression)
    if answer is None:
        return "unknown: Prometheus does not answer"
    return f"{answer[0][1]:,.1f}{figure.unit}" if answer else "-"
