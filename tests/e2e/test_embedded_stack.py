"""`make demo` and `make run` as a person uses them: numbers that agree, restarts, ends."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT
from tests.e2e.flying_canary import sees_everything_once
from tests.suite_running import Suite
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def own_suite(start_suite: Callable[..., Suite]) -> Iterator[Suite]:
    """A suite that these tests may stop and kill."""
    suite = start_suite(PULSEGATE_CANARY="1")
    yield suite
    suite.stop()


def demo(suite: Suite) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "deploy.local", "demo", "--exit"],
        cwd=CHECKOUT,
        env={**os.environ, "PULSEGATE_PORT": str(suite.port), "PULSEGATE_DATA": str(suite.data)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_the_demos_numbers_agree_and_go_on_agreeing_on_kept_data(own_suite: Suite) -> None:
    own_suite.stop()
    first = demo(own_suite)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Every number agrees." in first.stdout
    second = demo(own_suite)
    assert second.returncode == 0, second.stdout + second.stderr
    assert sent_orders(second.stdout) == 2 * sent_orders(first.stdout)
    own_suite.start()


def sent_orders(output: str) -> float:
    return sum(float(line.split()[1]) for line in output.splitlines() if line.startswith("demo_orders_total"))


def test_it_says_where_it_is_and_how_to_stop_it(own_suite: Suite) -> None:
    wait_for(lambda: "Ctrl-C stops it." in own_suite.terminal, what="it says how to stop it")
    assert own_suite.base_url in own_suite.terminal
    assert str(own_suite.data / "logs") in own_suite.terminal


@pytest.mark.parametrize(
    "name",
    [
        "postgres",
        "valkey",
        "nats",
        "prometheus",
        "auth",
        "config",
        "codegen",
        "receiver",
        "aggregator",
        "gateway",
        "canary",
    ],
)
def test_whatever_is_killed_runs_again(own_suite: Suite, name: str) -> None:
    old = own_suite.kill(name)
    own_suite.wait_restarted(name, old)
    own_suite.wait_ready()


def test_a_canary_flies_where_it_is_asked_for_and_finds_everything_once(own_suite: Suite) -> None:
    operations = f"http://127.0.0.1:{own_suite.ports.operations('canary')}"
    wait_for(lambda: sees_everything_once(operations), within_seconds=60, what="the canary sees what it has sent")


def test_a_killed_supervisor_takes_everything_with_it_and_starts_again_on_the_same_data(own_suite: Suite) -> None:
    pids = [process["pid"] for process in own_suite.processes().values()]
    own_suite.kill_supervisor()
    own_suite.start()
    assert not any(runs(pid) for pid in pids)


def test_ctrl_c_ends_everything_in_good_order(own_suite: Suite) -> None:
    pids = [process["pid"] for process in own_suite.processes().values()]
    assert own_suite.stop() == 0
    assert not any(runs(pid) for pid in pids)
    assert not (own_suite.data / "run.json").exists()
    assert "database system is shut down" in own_suite.log("postgres").splitlines()[-1]
    own_suite.start()


def test_a_second_suite_runs_beside_the_first(own_suite: Suite, start_suite: Callable[..., Suite]) -> None:
    other = start_suite(PULSEGATE_DEFAULT_PLAN="free")
    assert other.pid("gateway") != own_suite.pid("gateway")
    own_suite.wait_ready()
    other.stop()
    own_suite.wait_ready()


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
