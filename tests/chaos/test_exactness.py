"""Everything at once, on the whole suite: processes die and freeze, failpoints strike, clients repeat themselves.

The oracle is what the clients know: the sum of acknowledged batches must be what Prometheus shows, to the unit.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from deploy.local.progress import say
from tests.chaos import plan, resources
from tests.chaos.knowledge import Known
from tests.chaos.mayhem import Mayhem, failpoints_hit
from tests.chaos.resources import Used
from tests.chaos.traffic import Traffic
from tests.chaos.visible import adds_up, counted, reconciled, visible
from tests.e2e.api import connected, sign_up
from tests.suite_running import Suite

_PRODUCERS = 8
_WARM_UP_SECONDS = 3.0
_VISIBLE_SECONDS = 120.0


async def _warmed_up(suite: Suite, traffic: Traffic) -> dict[str, Used]:
    """Some load without disruptions; returns what processes used afterwards."""
    running = asyncio.create_task(asyncio.sleep(_WARM_UP_SECONDS))
    await traffic.run(_PRODUCERS, going_on=lambda: not running.done())
    return resources.used(suite)


async def _under_load(traffic: Traffic, mayhem: Mayhem) -> None:
    """Disruptions while clients send; returns when all that must be acknowledged is."""
    over = False
    sending = asyncio.create_task(traffic.run(_PRODUCERS, going_on=lambda: not over))
    disrupting = asyncio.create_task(mayhem.run())
    await asyncio.wait([sending, disrupting], return_when=asyncio.FIRST_COMPLETED)
    over = True
    if sending.done():
        disrupting.cancel()
    await asyncio.gather(sending, disrupting)


def _told(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda each: -each[1])) or "none"


def _report(known: Known, mayhem: Mayhem, suite: Suite, given_up: Sequence[bool | None]) -> None:
    orders = sum(value for (name, _), value in known.expected.items() if name == "chaos_orders_total")
    rows = {
        "batches acknowledged": str(known.acknowledged),
        "requests by status": _told({status or "no answer": count for status, count in known.statuses.items()}),
        "sent again after the 202": _told(known.again),
        "given up": f"{len(given_up)}, of which counted {given_up.count(True)}, in part {given_up.count(None)}",
        "kill -9": f"{mayhem.kills.total()}: {_told(mayhem.kills)}",
        "rolled": _told(mayhem.rolled),
        "paused": _told(mayhem.pauses),
        "failpoints": _told(failpoints_hit(suite)),
        "expected and visible": f"{orders:.0f} orders in {len(known.expected)} series, every one equal",
        "beside them": f"{len(known.levels.series)} merged gauges and {len(known.windows.series)} quantiles",
    }
    say()
    for what, figure in rows.items():
        say(f"  {what:26}{figure}")


def _report_resources(before: Mapping[str, Used], after: Mapping[str, Used]) -> None:
    say(f"  {'process':26}{'MB before':>10}{'after':>8}{'files before':>14}{'after':>8}")
    for name in sorted(before.keys() & after.keys()):
        was, now = before[name], after[name]
        say(f"  {name:26}{was.bytes >> 20:10}{now.bytes >> 20:8}{was.files:14}{now.files:8}")


@pytest.mark.timeout(int(3 * plan.chosen().most_seconds) + 600)
async def test_totals_are_exact_through_everything(start_suite: Callable[..., Suite]) -> None:
    settings = plan.chosen()
    suite = start_suite(
        PULSEGATE_TEST_INSTALLATION="yes",
        PULSEGATE_FAILPOINTS=plan.FAILPOINTS,
        PULSEGATE_FAILPOINTS_SEED=str(settings.seed),
        PULSEGATE_BREAKER_RESET_SECONDS="1",
        PULSEGATE_AUTH_REQUESTS_PER_MINUTE="100000",
        PULSEGATE_ADDRESS_REQUESTS_PER_15_MINUTES="1000000",
    )
    say(f"\nchaos with seed {settings.seed}: {settings.most_kills} kills, {settings.most_seconds:.0f} s at most")
    async with connected(suite.base_url) as api:
        project = await sign_up(api)
        usage_key = (await project.create_key("secret", scopes=["usage:read"]))["key"]
        traffic = Traffic(project, settings.seed)
        await traffic.define()
        before = await _warmed_up(suite, traffic)

        async def afterwards() -> None:
            await traffic.limits.raise_once()
            await traffic.replay(5)

        mayhem = Mayhem(suite, settings, afterwards)
        await _under_load(traffic, mayhem)
        suite.wait_ready(within_seconds=120)
        await adds_up(project, traffic.known, _VISIBLE_SECONDS)
        ledger = await reconciled(project, usage_key, traffic.known)
        shown = await visible(project)
        _report(traffic.known, mayhem, suite, [counted(adds, shown) for adds in traffic.known.given_up])
        say(f"  {'ledger':26}{_told(ledger)}")
        after = await resources.settled(suite, before)
        _report_resources(before, after)
    assert mayhem.kills.total() > 0
    assert failpoints_hit(suite).total() > 0
    assert not resources.grown(before, after)
    suite.stop()
