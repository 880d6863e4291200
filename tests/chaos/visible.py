"""What Prometheus shows of a chaos run's project, and whether it is what the clients know."""

import math
import time
from collections import Counter

from tests.chaos.knowledge import Known
from tests.chaos.series import FOLDED, Series, native_shown
from tests.chaos.windows import RELATIVE_ERROR
from tests.e2e.api import Project, UnavailableError
from tests.waiting import eventually

#: Labels that say whose a series is.
_OWNER = frozenset({"__name__", "tenant_id", "project_id"})


async def visible(project: Project) -> dict[Series, float]:
    """The last value of each series; native histograms are taken apart, what folds is added up.
    Raises UnavailableError."""
    shown: dict[Series, float] = {}
    # Prometheus before version 3 has no last_over_time() of native histograms: it answers a number that means nothing.
    for each in [
        *await project.query('last_over_time({__name__=~"chaos_.*",__name__!="chaos_wait_seconds"}[1h])'),
        *await project.query("chaos_wait_seconds"),
    ]:
        labels = {name: value for name, value in each["metric"].items() if name not in _OWNER}
        ordered = sorted(labels.items(), key=lambda label: (label[0] == "le", label[0]))
        name, own = each["metric"].get("__name__", ""), ",".join(f'{name}="{value}"' for name, value in ordered)
        shown.update(native_shown(name, own, each["histogram"][1]) if "histogram" in each else {})
        if "value" in each:
            series = name, "" if name in FOLDED else own
            shown[series] = shown.get(series, 0.0) + float(each["value"][1])
    return shown


async def differences(project: Project, known: Known) -> list[str]:
    """Where Prometheus shows something else than what was acknowledged."""
    shown = await visible(project)
    now = time.time()
    exact = {**known.expected, **known.levels.merged(int(now * 1000))}
    wrong = [
        f"{name}{{{labels}}}: {shown.get((name, labels))}, not {value}"
        for (name, labels), value in exact.items()
        if shown.get((name, labels)) != value
    ]
    far = [
        f"{name}{{{labels}}}: {shown.get((name, labels))}, not near {value}"
        for (name, labels), value in known.windows.quantiles(now).items()
        if not math.isclose(shown.get((name, labels), math.nan), value, rel_tol=RELATIVE_ERROR)
    ]
    torn = [adds for adds in known.given_up if counted(adds, shown) is None]
    strangers = shown.keys() - known.series
    return [
        *wrong,
        *far,
        *(f"shown in part: {sorted((series, shown.get(series)) for series in adds)}" for adds in torn),
        *(f"nobody sent {series}" for series in sorted(strangers)),
    ]


async def reconciled(project: Project, usage_key: str, known: Known) -> dict[str, int]:
    """Checks the ledger against what clients know; returns its totals.

    Of each metric *committed* is, to the unit, what was acknowledged and what was counted of batches without an answer.
    Nothing is *rejected*. *Accepted* and *received* are not stored, they are the sums of the others: so that *received*
    is no more than all requests had together bounds *duplicate* from above, by metric. From below there is only that
    there are some where clients sent again: what a receiver counts in the second before it is killed, or while the log
    fails, is lost. `test_ledger` has duplicates to the unit, while nothing crashes.
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
    received: Counter[str] = Counter()
    for line in body["items"]:
        by_metric[line["metric"]] += line["committed"]
        received[line["metric"]] += line["received"]
        totals.update({name: line[name] for name in ("received", "accepted", "committed", "duplicate", "folded")})
        totals["rejected"] += sum(line["rejected"].values())
    assert by_metric == committed, "what the ledger says is committed is what was acknowledged"
    beyond = {name: received[name] for name, sent in known.attempted.items() if received[name] > sent}
    assert not beyond, f"more was received than was sent: {beyond}, {known.attempted}"
    assert totals["rejected"] == 0, "nothing was refused"
    assert totals["duplicate"] > 0 or not known.again, "what was sent again was received again"
    assert 0 < totals["folded"] < sum(committed[name] for name in FOLDED), "some, and none of what does not fold"
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
    resets = await project.query('sum(resets({__name__=~"chaos_(orders|attempts|visits)_total"}[1h]))')
    assert [float(each["value"][1]) for each in resets] == [0.0], "no counter ever fell"
    return time.monotonic() - began
