"""What Prometheus shows of a chaos run's project, and whether it is what the clients know."""

import time
from collections import Counter

from tests.chaos.batches import Series
from tests.chaos.knowledge import Known
from tests.e2e.api import Project, UnavailableError
from tests.waiting import eventually

#: Labels that say whose a series is.
_OWNER = frozenset({"__name__", "tenant_id", "project_id"})


async def visible(project: Project) -> dict[Series, float]:
    """The last value of each series. Raises UnavailableError."""
    shown: dict[Series, float] = {}
    for each in await project.query('last_over_time({__name__=~"chaos_.*"}[1h])'):
        labels = {name: value for name, value in each["metric"].items() if name not in _OWNER}
        ordered = sorted(labels.items(), key=lambda label: (label[0] == "le", label[0]))
        series = (each["metric"].get("__name__", ""), ",".join(f'{name}="{value}"' for name, value in ordered))
        shown[series] = float(each["value"][1])
    return shown


async def differences(project: Project, known: Known) -> list[str]:
    """Where Prometheus shows something else than what was acknowledged."""
    shown = await visible(project)
    wrong = [
        f"{name}{{{labels}}}: {shown.get((name, labels))}, not {value}"
        for (name, labels), value in known.expected.items()
        if shown.get((name, labels)) != value
    ]
    torn = [adds for adds in known.given_up if counted(adds, shown) is None]
    strangers = shown.keys() - known.expected.keys() - {series for adds in known.given_up for series in adds}
    return [
        *wrong,
        *(f"shown in part: {sorted((series, shown.get(series)) for series in adds)}" for adds in torn),
        *(f"nobody sent {series}" for series in sorted(strangers)),
    ]


async def reconciled(project: Project, usage_key: str, known: Known) -> dict[str, int]:
    """Checks the ledger against what clients know, to the unit; returns its totals.

    Duplicates are not known to the unit: what a receiver counts in the second before it is killed is lost.
    """
    shown = await visible(project)
    committed = known.metrics + Counter(
        name.removesuffix("_count")
        for adds in known.given_up
        for name, _ in adds
        if counted(adds, shown) and not name.endswith(("_bucket", "_sum"))
    )
    body = await project.api.expect(200, "GET", f"/api/v1/projects/{project.id}/ledger", credential=usage_key)
    totals: Counter[str] = Counter()
    by_metric: Counter[str] = Counter()
    for line in body["items"]:
        by_metric[line["metric"]] += line["committed"]
        totals.update({name: line[name] for name in ("received", "accepted", "committed", "duplicate", "folded")})
        totals["rejected"] += sum(line["rejected"].values())
    assert by_metric == committed, "what the ledger says is committed is what was acknowledged"
    assert totals["accepted"] == totals["committed"] + totals["duplicate"]
    assert totals["received"] == totals["accepted"] + totals["rejected"]
    assert set(body["deliveredUntil"]) == {"remote_write"}
    return dict(totals)


def counted(adds: dict[Series, float], shown: dict[Series, float]) -> bool | None:
    """Whether a batch without an acknowledgement was counted; None where only a part of it was."""
    if all(shown.get(series) == amount for series, amount in adds.items()):
        return True
    return False if not any(shown.get(series, 0.0) for series in adds) else None


async def adds_up(project: Project, known: Known, within_seconds: float) -> float:
    """Waits until Prometheus shows exactly what was acknowledged; returns how long that took."""
    began, last = time.monotonic(), ["nothing was asked"]

    async def exact() -> bool:
        nonlocal last
        try:
            last = await differences(project, known)
        except UnavailableError as away:
            last = [str(away)]
        return not last

    try:
        await eventually(exact, within_seconds=within_seconds)
    except AssertionError:
        raise AssertionError(f"{len(last)} series differ:\n" + "\n".join(last[:20])) from None
    resets = await project.query('sum(resets({__name__=~"chaos_(orders|attempts)_total"}[1h]))')
    assert [float(each["value"][1]) for each in resets] == [0.0], "no counter ever fell"
    return time.monotonic() - began
