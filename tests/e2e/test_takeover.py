"""Two aggregators on the running suite: one of them owns the lane at a time, and totals stay exact."""

from collections.abc import Callable
from urllib.request import urlopen

import pytest

from deploy.local.layout import Ports
from tests.e2e.api import Project
from tests.e2e.load import Load
from tests.e2e.replicas import Replica, running
from tests.suite_running import Suite
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

_TAKEOVER_SECONDS = 60.0


def _wait_owner(operations_port: int, owns: bool = True) -> None:
    line = f'pulsegate_lane_owned{{lane="0"}} {float(owns)}'

    def seen() -> bool:
        with urlopen(f"http://127.0.0.1:{operations_port}/metrics", timeout=10) as answer:
            return line in answer.read().decode().splitlines()

    wait_for(seen, within_seconds=_TAKEOVER_SECONDS, what=f"port {operations_port} says {line}")


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(["services.ingest", "aggregator"], id="by one whose clock is right"),
        pytest.param(["tests.late_aggregator"], id="by one whose clock is two seconds behind"),
    ],
)
async def test_a_paused_aggregator_that_wakes_after_a_takeover_changes_nothing(
    suite: Suite, project: Project, port_blocks: Callable[[], Ports], module: list[str]
) -> None:
    first, second = suite.ports.operations("aggregator"), port_blocks().operations("aggregator")
    load = Load(project)
    await load.define()
    await load.run(producers=4, batches=20)
    _wait_owner(first)
    with running(Replica(suite, "aggregator", second, *module)):
        with suite.paused("aggregator"):
            await load.run(producers=4, batches=20, seed=2)
            _wait_owner(second)
            await load.adds_up()
            await load.run(producers=4, batches=20, seed=3)
        _wait_owner(first, owns=False)
        _wait_owner(second)
        await load.run(producers=4, batches=20, seed=4)
        await load.adds_up()
    _wait_owner(first)
    await load.run(producers=4, batches=20, seed=5)
    await load.adds_up()
