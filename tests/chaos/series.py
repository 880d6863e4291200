"""What the observations of a batch add to series, as Prometheus names and shows these."""

from collections.abc import Sequence

#: A series as Prometheus names it, and its labels besides those that say whose it is: `plan="pro",le="0.5"`.
Series = tuple[str, str]

BUCKETS = (0.5, 1.0)
#: Eighths, so that sums are exact.
LATENCIES = (0.125, 0.5, 0.75, 1.0, 4.0)
#: A counter and a merged gauge that are sent more label sets than they may have, and how many: each of the two is
#: compared as one series without labels, the sum over all that it has.
VISITS, GUESTS = FOLDED = "chaos_visits_total", "chaos_guests"
VISITORS = 12
#: Each the outermost value of a bucket in every schema.
WAITS = (-2.0, 0.0, 0.125, 1.0, 4.0, 1024.0)


def observed(histogram: str, own: str, latencies: Sequence[float]) -> dict[Series, float]:
    """A histogram's classic series, with their cumulative buckets."""
    buckets = {str(bound): sum(each <= bound for each in latencies) for bound in BUCKETS}
    buckets["+Inf"] = len(latencies)
    return {
        (f"{histogram}_count", own): float(len(latencies)),
        (f"{histogram}_sum", own): sum(latencies),
        **{(f"{histogram}_bucket", f'{own},le="{le}"'): float(count) for le, count in buckets.items()},
    }


def native_observed(histogram: str, own: str, waits: Sequence[float]) -> dict[Series, float]:
    """A native histogram's one series, taken apart: count, sum, and each bucket by its outermost value."""
    return {
        (histogram, f"{own} count"): float(len(waits)),
        (histogram, f"{own} sum"): sum(waits),
        **{(histogram, f"{own} bucket {wait}"): float(waits.count(wait)) for wait in waits},
    }


def native_shown(histogram: str, own: str, shown: dict[str, object]) -> dict[Series, float]:
    """The same of what Prometheus answers: count, sum, and buckets as [which ends belong to it, low, high, count]."""
    parts = {(histogram, f"{own} {part}"): float(str(shown[part])) for part in ("count", "sum")}
    buckets = shown.get("buckets", [])
    assert isinstance(buckets, list)
    for _, low, high, count in buckets:
        parts[histogram, f"{own} bucket {_outermost(float(low), float(high))}"] = float(count)
    return parts


def _outermost(low: float, high: float) -> float:
    return 0.0 if low == -high else max(low, high, key=abs)
