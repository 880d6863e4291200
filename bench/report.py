"""Figures as Markdown: what the terminal shows, and what is kept."""

from collections.abc import Mapping, Sequence

from bench.phases import Figures

_MIB = 2**20
#: What the bars name the cost at.
REFERENCE_RATE = 100_000


def suite_tables(loads: Sequence[tuple[str, Figures]]) -> str:
    """One column a load."""
    return "\n\n".join([_figures_table(loads), _cpu_table(loads), _memory_table(loads)])


def _figures_table(loads: Sequence[tuple[str, Figures]]) -> str:
    rows = [
        ["series", *(f"{f.series:,}" for _, f in loads)],
        ["metrics/s accepted", *(f"{f.outcome.metrics_per_second:,.0f}" for _, f in loads)],
        ["metrics/s visible in Prometheus", *(f"{f.visible_per_second:,.0f}" for _, f in loads)],
        ["accepted", *(f"{f.outcome.accepted:,}" for _, f in loads)],
        ["visible", *(f"{f.visible:,}" for _, f in loads)],
        ["exact", *("yes" if f.exact else "**no**" for _, f in loads)],
        ["answers", *(_answers(f) for _, f in loads)],
        ["latency p50 / p95 / p99, ms", *(_latencies(f) for _, f in loads)],
        ["sent later than 10 ms after their time", *(f"{f.outcome.late_ratio:.1%}" for _, f in loads)],
        ["202 to visible p50 / p95, s", *(f"{f.delay_p50_seconds:.1f} / {f.delay_p95_seconds:.1f}" for _, f in loads)],
        ["a frame durable in the log p99, ms", *(f"{f.log_append_p99_ms:.1f}" for _, f in loads)],
        ["cores busy with this", *(f"{f.cores:.2f}" for _, f in loads)],
        ["cores busy with anything else", *(f"{f.foreign_cores:.2f}" for _, f in loads)],
    ]
    return table(["", *(name for name, _ in loads)], rows)


def _cpu_table(loads: Sequence[tuple[str, Figures]]) -> str:
    costs = [f.cpu_us_a_batch for _, f in loads]
    rows = [[name, *(f"{cost[name]:,.0f}" for cost in costs)] for name in _by_weight(costs[0])]
    rows.append(["all", *(f"{sum(cost.values()):,.0f}" for cost in costs)])
    return table(["CPU µs for 100 metrics", *(name for name, _ in loads)], rows)


def _memory_table(loads: Sequence[tuple[str, Figures]]) -> str:
    sizes = [f.memory_bytes for _, f in loads]
    rows = [[name, *(f"{size[name] / _MIB:,.0f}" for size in sizes)] for name in _by_weight(sizes[0])]
    return table(["memory afterwards, MiB", *(name for name, _ in loads)], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, aligned for the terminal; the first column to the left."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    ruler = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "\n".join(_line(row, widths) for row in [head, ruler, *rows])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "| " + " | ".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)]) + " |"


def _by_weight(weights: Mapping[str, float]) -> list[str]:
    return sorted(weights, key=lambda name: -weights[name])


def _latencies(figures: Figures) -> str:
    outcome = figures.outcome
    return f"{outcome.p50_ms:.1f} / {outcome.p95_ms:.1f} / {outcome.p99_ms:.1f}"


def _answers(figures: Figures) -> str:
    outcome = figures.outcome
    answers = [f"{status}: {count:,}" for status, count in sorted(outcome.statuses.items())]
    answers += [f"{kind}: {count:,}" for kind, count in outcome.errors.items()]
    return ", ".join(answers)
