"""Failpoints: what arms them, when they strike, and that they are off."""

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis import failpoints
from chassis.errors import Unavailable
from chassis.failpoints import Failpoint
from chassis.settings import ServiceSettings, SettingsError, load

NEEDED = {"PULSEGATE_OPS_PORT": "1", "PULSEGATE_SERVICE_TOKEN": "token"}
CHECKOUT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm(())


def test_without_a_setting_nothing_is_armed() -> None:
    failpoints.arm(load(ServiceSettings, NEEDED).failpoints)
    assert not failpoints.ARMED


def test_each_action_and_each_when_is_parsed() -> None:
    assert failpoints.parse("log-acknowledged:crash@0.01, committed:pause=2.5@3,delivered:error@1.0") == (
        Failpoint(point="log-acknowledged", action="crash", chance=0.01),
        Failpoint(point="committed", action="pause", pause_seconds=2.5, time=3),
        Failpoint(point="delivered", action="error", chance=1.0),
    )


def test_every_fault_of_the_setting_is_named() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what a setting's parser raises
        failpoints.parse("nowhere:crash@1,committed:explode@1,committed:crash,committed:pause=61@1")
    assert len(str(caught.value).split("; ")) == 4


@pytest.mark.parametrize("when", ["0", "-1", "1.1", "2.0", "0.0000000001", "", "x", "\uff11", "0.\u0661"])
def test_a_when_that_is_neither_a_time_nor_a_probability_is_refused(when: str) -> None:
    with pytest.raises(ValueError, match="is not point"):
        failpoints.parse(f"committed:crash@{when}")


def test_only_a_test_installation_takes_them() -> None:
    asked = {**NEEDED, "PULSEGATE_FAILPOINTS": "committed:crash@1"}
    with pytest.raises(SettingsError) as caught:
        load(ServiceSettings, asked)
    assert "PULSEGATE_TEST_INSTALLATION" in str(caught.value)
    assert load(ServiceSettings, {**asked, "PULSEGATE_TEST_INSTALLATION": "yes"}).failpoints


async def test_a_numbered_time_strikes_once() -> None:
    failpoints.arm(failpoints.parse("committed:error@2"))
    await failpoints.reached("committed")
    with pytest.raises(Unavailable):
        await failpoints.reached("committed")
    await failpoints.reached("committed")
    await failpoints.reached("delivered")


def test_a_probability_strikes_as_often_as_it_says() -> None:
    (failpoint,) = failpoints.parse("committed:error@0.25")
    draws = itertools.cycle([0.0, 0.2, 0.25, 0.9])
    assert [failpoint.strikes(time, lambda: next(draws)) for time in range(1, 5)] == [True, True, False, False]


async def strikes(life: str | None, armed: str = "committed:error@0.25") -> list[int]:
    """At which of two hundred times it strikes."""
    failpoints.arm(failpoints.parse(armed), life=life)
    times = []
    for time in range(200):
        try:
            await failpoints.reached("committed")
        except Unavailable:
            times.append(time)
    return times


async def test_a_seed_repeats_the_times_of_a_life_whatever_else_is_armed() -> None:
    times = await strikes("7 gateway 0")
    assert await strikes("7 gateway 0") == times
    assert await strikes("7 gateway 0", "committed:pause=0@0.5,delivered:crash@0.1,committed:error@0.25") == times
    others = [await strikes(life) for life in ("8 gateway 0", "7 auth 0", "7 gateway 1", None, None)]
    assert len({tuple(each) for each in (times, *others)}) == 6


def test_a_process_draws_from_the_seed_its_name_and_its_life() -> None:
    program = (
        "import contextlib\nfrom chassis import failpoints, runner, settings\n"
        "async def running(settings):\n"
        "    print([chance.random() for _, chance in failpoints.ARMED['committed']])\n"
        "    raise SystemExit\n    yield\n"
        "runner.run('{name}', settings.ServiceSettings, contextlib.asynccontextmanager(running))\n"
    )
    armed = {"PULSEGATE_FAILPOINTS": "committed:crash@0.1", "PULSEGATE_TEST_INSTALLATION": "yes"}

    def draws(name: str, **told: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-c", program.format(name=name)],
            cwd=CHECKOUT,
            env={**os.environ, **NEEDED, **armed, **told},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return ended.stdout.splitlines()[-1]

    first = draws("auth", PULSEGATE_FAILPOINTS_SEED="7")
    assert draws("auth", PULSEGATE_FAILPOINTS_SEED="7", PULSEGATE_RESTARTS="0") == first
    assert draws("auth", PULSEGATE_FAILPOINTS_SEED="7", PULSEGATE_RESTARTS="1") != first
    assert draws("config", PULSEGATE_FAILPOINTS_SEED="7") != first
    assert draws("auth") != draws("auth")


def test_a_crash_ends_the_process_as_kill_9_does() -> None:
    program = (
        "import asyncio\nfrom chassis import failpoints\n"
        "failpoints.arm(failpoints.parse('committed:crash@1'))\n"
        "try:\n    asyncio.run(failpoints.reached('committed'))\nfinally:\n    print('cleaned up')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert "cleaned up" not in ended.stdout


def test_every_point_stands_in_the_code_behind_a_truth_test_and_no_other() -> None:
    guarded = re.compile(r"if failpoints\.ARMED:\n\s+(?:.*\n)??\s*await failpoints\.reached\(\"([a-z-]+)\"\)")
    named = re.compile(r"failpoints\.reached\(\"([a-z-]+)\"\)")
    sources = [path.read_text() for path in (CHECKOUT / "services").rglob("*.py")]
    assert {point for source in sources for point in named.findall(source)} == set(failpoints.POINTS)
    unguarded = set(failpoints.POINTS) - {point for source in sources for point in guarded.findall(source)}
    assert unguarded == {"log-acknowledged"}, "its caller asks"
