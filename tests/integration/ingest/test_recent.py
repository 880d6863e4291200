"""Merged gauges and quantiles of summaries, held against what PromQL makes of the same numbers in a real Prometheus."""

import math
import signal
import time

import numpy as np
import pytest

from chassis.clock import SystemClock
from chassis.ids import uuid7
from contracts.pulsegate.config.v1 import definitions_pb2 as config
from tests.integration.ingest.pipeline import Pipeline

RULES = {
    "min": config.GAUGE_MERGE_MIN,
    "max": config.GAUGE_MERGE_MAX,
    "sum": config.GAUGE_MERGE_SUM,
}
LEVELS = {"a": [7.0, 3.5], "b": [-2.25], "c": [1e300, 11.0]}


class ClockAhead(SystemClock):
    """Minutes pass when the test says so."""

    def __init__(self) -> None:
        self.ahead_minutes = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_minutes * 60_000


async def report(pipeline: Pipeline, clients: dict[str, str]) -> None:
    """Each client reports its levels, one after the other, for each merged gauge, and for one of its own."""
    now_ms = int(time.time() * 1000) - 10_000
    for client, levels in LEVELS.items():
        for sequence, level in enumerate(levels, start=1):
            at_ms = now_ms + sequence
            metrics = [{"name": f"{rule}_load", "value": level, "timestamp": at_ms} for rule in RULES]
            single = {"name": "load", "value": level, "timestamp": at_ms, "labels": {"client": client}}
            await pipeline.send(*metrics, single, producer=clients[client], sequence=sequence)


def define_gauges(pipeline: Pipeline) -> None:
    for rule, number in RULES.items():
        pipeline.define(f"{rule}_load", "gauge", gauge_merge=number)
    pipeline.define("load", "gauge", labels=[{"name": "client"}], gauge_merge=config.GAUGE_MERGE_LAST)


async def test_merged_gauges_are_what_promql_makes_of_each_clients_own_through_a_kill(pipeline: Pipeline) -> None:
    define_gauges(pipeline)
    clients = {client: str(uuid7()) for client in LEVELS}
    async with pipeline.receiver():
        with pipeline.process("aggregator") as aggregator:
            await report(pipeline, clients)
            for rule, value in {"min": -2.25, "max": 11.0, "sum": 12.25}.items():
                await pipeline.expect(f"{rule}_load{{$project}}", value)
                assert await pipeline.value(f"{rule}(load{{$project}})") == value
            aggregator.send_signal(signal.SIGKILL)
            aggregator.start()
            repeated = await pipeline.send({"name": "sum_load", "value": 99}, producer=clients["a"], sequence=2)
            assert repeated.duplicate
            await pipeline.send({"name": "sum_load", "value": 8}, producer=clients["c"], sequence=3)
            await pipeline.expect("sum_load{$project}", 3.5 - 2.25 + 8)


async def test_a_new_owner_goes_on_where_a_paused_one_stopped_and_the_woken_one_after_it(pipeline: Pipeline) -> None:
    define_gauges(pipeline)
    pipeline.define("size_bytes", "summary", objectives=[0.5])
    clients = {client: str(uuid7()) for client in LEVELS}
    async with pipeline.receiver():
        with pipeline.process("aggregator") as paused:
            await report(pipeline, clients)
            await pipeline.send({"name": "size_bytes", "value": [1, 1]})
            await pipeline.expect("sum_load{$project}", 12.25)
            await pipeline.expect("size_bytes_count{$project}", 2)
            paused.send_signal(signal.SIGSTOP)
            async with pipeline.aggregator(operations_port=pipeline.new_ports().public):
                await pipeline.send({"name": "sum_load", "value": 1}, producer=clients["a"], sequence=3)
                await pipeline.send({"name": "size_bytes", "value": [8, 8, 8, 8]})
                await pipeline.expect("sum_load{$project}", 1 - 2.25 + 11)
                await pipeline.expect('round(size_bytes{quantile="0.5", $project})', 8)
                paused.send_signal(signal.SIGCONT)
            await pipeline.send({"name": "sum_load", "value": 2}, producer=clients["b"], sequence=2)
            await pipeline.send({"name": "size_bytes", "value": [1, 1, 1]})
            await pipeline.expect("sum_load{$project}", 1 + 2 + 11)
            await pipeline.expect('round(size_bytes{quantile="0.5", $project})', 1)
            assert await pipeline.value("size_bytes_count{$project}") == 9


async def test_a_gauge_nobody_reports_any_more_ends_and_quantiles_become_nan(pipeline: Pipeline) -> None:
    define_gauges(pipeline)
    pipeline.define("size_bytes", "summary", objectives=[0.5])
    clock = ClockAhead()
    async with pipeline.receiver(), pipeline.aggregator(clock):
        await report(pipeline, {client: str(uuid7()) for client in LEVELS})
        await pipeline.send({"name": "size_bytes", "value": [4, 4, 4]})
        await pipeline.expect("sum_load{$project}", 12.25)
        await pipeline.expect('round(size_bytes{quantile="0.5", $project})', 4)
        clock.ahead_minutes = 6
        at = time.time() + 6 * 60 + 5
        await pipeline.expect(f"sum_load{{$project}} @ {at}", None)
        await pipeline.expect(f"load{{$project, client='a'}} @ {at}", 3.5)
        clock.ahead_minutes = 11
        at = time.time() + 11 * 60 + 5
        await _expect_nan(pipeline, f'size_bytes{{quantile="0.5", $project}} @ {at}')
        assert await pipeline.value(f"size_bytes_count{{$project}} @ {at}") == 3


async def _expect_nan(pipeline: Pipeline, expression: str) -> None:
    await pipeline.expect(f"count({expression} != {expression})", 1)


async def test_quantiles_are_close_to_promqls_own_and_to_numpys(pipeline: Pipeline) -> None:
    """Each observation is a gauge of its own too, so that PromQL's `quantile` answers from the exact numbers."""
    pipeline.define("size_bytes", "summary", objectives=[0.1, 0.5, 0.9, 0.99])
    pipeline.define("exact_bytes", "gauge", labels=[{"name": "n"}])
    observations = np.random.default_rng(3).lognormal(2.0, 2.0, 101) * np.array([-1.0] * 30 + [1.0] * 71)
    batches = np.array_split(observations, 3)
    async with pipeline.receiver():
        with pipeline.process("aggregator") as aggregator:
            for sequence, batch in enumerate(batches, start=1):
                gauges = [
                    {"name": "exact_bytes", "value": value, "labels": {"n": f"{sequence}-{n}"}}
                    for n, value in enumerate(batch.tolist())
                ]
                await pipeline.send({"name": "size_bytes", "value": batch.tolist()})
                await pipeline.send(*gauges)
            await pipeline.expect("size_bytes_count{$project}", observations.size)
            await pipeline.expect("count(exact_bytes{$project})", observations.size)
            before = await _quantiles(pipeline)
            for objective, value in before.items():
                # Of 101 observations each of these quantiles is one of them.
                exact = await pipeline.value(f"quantile({objective}, exact_bytes{{$project}})")
                assert exact == pytest.approx(np.quantile(observations, float(objective)))
                assert value == pytest.approx(exact, rel=0.01 + 1e-9)
            aggregator.send_signal(signal.SIGKILL)
            aggregator.start()
            await pipeline.send({"name": "size_bytes", "value": [0, 0]})
            await pipeline.expect("size_bytes_count{$project}", observations.size + 2)
    after = await _quantiles(pipeline)
    expected = np.quantile([*observations, 0, 0], [float(each) for each in after], method="lower")
    assert list(after.values()) == pytest.approx(expected.tolist(), rel=0.01 + 1e-9)


async def _quantiles(pipeline: Pipeline) -> dict[str, float]:
    found = {
        each["metric"]["quantile"]: float(each["value"][1]) for each in await pipeline.query("size_bytes{$project}")
    }
    assert sorted(found) == ["0.1", "0.5", "0.9", "0.99"]
    assert not any(map(math.isnan, found.values()))
    return dict(sorted(found.items()))
