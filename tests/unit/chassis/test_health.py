"""What health answers, for every state of the dependencies."""

import asyncio

import pytest

from chassis.health import Health


class Dependency:
    """Up until it is taken away."""

    def __init__(self) -> None:
        self.fault: Exception | None = None

    async def probe(self) -> None:
        if self.fault:
            raise self.fault


@pytest.fixture
def database() -> Dependency:
    return Dependency()


@pytest.fixture
def cache() -> Dependency:
    return Dependency()


@pytest.fixture
def health(database: Dependency, cache: Dependency) -> Health:
    health = Health()
    health.add("postgres", database.probe, hard=True)
    health.add("redis", cache.probe, hard=False)
    return health


async def test_before_anything_was_asked_it_is_neither_started_nor_ready(health: Health) -> None:
    assert (health.started, health.status) == (False, "unready")
    assert {check["status"] for check in health.report()["checks"].values()} == {"down"}


async def test_it_is_ready_when_everything_answers(health: Health) -> None:
    await health.refresh()
    assert (health.started, health.status) == (True, "ready")


async def test_a_soft_dependency_degrades(health: Health, cache: Dependency) -> None:
    cache.fault = OSError("refused")
    await health.refresh()
    assert (health.started, health.status) == (True, "degraded")
    report = health.report()["checks"]["redis"]
    assert (report["status"], report["hard"], report["reason"]) == ("down", False, "refused")


async def test_a_hard_dependency_makes_it_unready_and_its_return_ready_again(
    health: Health, database: Dependency
) -> None:
    await health.refresh()
    database.fault = OSError("refused")
    await health.refresh()
    assert (health.started, health.status) == (True, "unready")  # once started it has started
    database.fault = None
    await health.refresh()
    assert health.status == "ready"


async def test_it_has_not_started_before_every_hard_dependency_answered(health: Health, database: Dependency) -> None:
    database.fault = OSError("refused")
    await health.refresh()
    assert not health.started


async def test_it_is_unready_while_it_stops(health: Health) -> None:
    await health.refresh()
    health.stopping = True
    assert health.status == "unready"


async def test_reasons_show_no_secrets(health: Health, database: Dependency) -> None:
    database.fault = OSError("postgresql://auth:hunter2@db refused")
    await health.refresh()
    assert "hunter2" not in str(health.report())


async def test_a_dependency_that_hangs_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.health._TIMEOUT_SECONDS", 0.01)
    health = Health()

    async def hang() -> None:
        await asyncio.Event().wait()

    health.add("nats", hang, hard=True)
    await health.refresh()
    assert health.report()["checks"]["nats"]["reason"] == "no answer in 0.01 s"


async def test_every_dependency_is_shown_with_its_latency(health: Health) -> None:
    await health.refresh()
    report = health.report()
    assert list(report["checks"]) == ["postgres", "redis"]
    assert all(check["latencyMs"] >= 0 for check in report["checks"].values())


async def test_reasons_can_be_left_out_for_the_public(health: Health, database: Dependency) -> None:
    database.fault = OSError("10.0.0.7 refused")
    await health.refresh()
    assert "10.0.0.7" not in str(health.report(with_reasons=False))
