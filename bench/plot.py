"""The figures as a picture: metrics a second beside the peers', and what 100 metrics cost each process."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from bench.report import Results, by_weight

_OURS, _THEIRS = "#2563eb", "#94a3b8"
#: Processes that cost less are not told apart.
_SMALLEST_SHARE = 0.03


def draw(results: Results, file: Path) -> None:
    """Writes an SVG, the same bytes for the same figures."""
    # text stays text, and ids do not change with each drawing
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pulsegate", "font.size": 9}):
        figure = Figure(figsize=(9, 6.5), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=[2, 1])
        _draw_rates(upper, results)
        _draw_costs(lower, results)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})


def _draw_rates(axes: Axes, results: Results) -> None:
    rates = {"Pulsegate, durable": results.fastest.outcome.metrics_per_second}
    rates.update({peer.name: peer.outcome.metrics_per_second for peer in results.peers})
    bars = axes.barh(list(rates), list(rates.values()), color=[_OURS, *[_THEIRS] * len(results.peers)])
    axes.bar_label(bars, labels=[f"{rate:,.0f}" for rate in rates.values()], padding=3)
    axes.set_title("metrics accepted a second, 100 a request, 256 connections", loc="left")
    _tidy(axes)


def _draw_costs(axes: Axes, results: Results) -> None:
    costs = {name: figures.cpu_us_a_batch for name, figures in results.loads.items()}
    weights = results.fastest.cpu_us_a_batch
    told_apart = [name for name in by_weight(weights) if weights[name] > _SMALLEST_SHARE * sum(weights.values())]
    begins = dict.fromkeys(costs, 0.0)
    for process in told_apart:
        widths = [cost[process] for cost in costs.values()]
        axes.barh(list(costs), widths, left=list(begins.values()), label=process, edgecolor="white")
        begins = {name: begins[name] + cost[process] for name, cost in costs.items()}
    rest = [sum(cost.values()) - begins[name] for name, cost in costs.items()]
    axes.barh(list(costs), rest, left=list(begins.values()), label="others", color=_THEIRS)
    axes.set_title("processor time for 100 metrics, µs", loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
