"""What is computed from what was measured."""

import math
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from bench.__main__ import paced_loads
from bench.exposition import buckets, quantile, total
from bench.load import Outcome
from bench.phases import Figures
from bench.processes import LOAD_GENERATOR, CpuMeter, CpuUse, memory_bytes
from bench.profiling import costliest
from bench.report import memory_growth, table
from bench.workload import Workload

_EXPOSITION = """\
# TYPE appends histogram
appends_bucket{le="0.001"} 10
appends_bucket{le="0.01"} 90
appends_bucket{le="+Inf"} 100
appends_sum 1
appends_count 100
# TYPE rows counter
rows_total{kind="a"} 1
rows_total{kind="b"} 2
"""


def test_a_quantile_is_of_what_came_in_between() -> None:
    after = buckets(_EXPOSITION, "appends")
    assert quantile({}, after, 0.5) == pytest.approx(0.001 + 0.009 * 40 / 80)
    assert quantile({}, after, 0.99) == 0.01
    before = {0.001: 10.0, 0.01: 10.0, math.inf: 20.0}
    assert quantile(before, after, 0.5) == pytest.approx(0.001 + 0.009 * 40 / 80)
    assert math.isnan(quantile(after, after, 0.5))


def test_a_total_is_over_all_label_sets() -> None:
    assert total(_EXPOSITION, "rows_total") == 3


def test_processor_time_goes_to_the_nearest_named_process() -> None:
    spin = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\ninput()"
    with subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE) as busy:
        meter = CpuMeter({"busy": busy.pid})
        while meter.used().seconds["busy"] < 0.25:
            assert busy.poll() is None
        busy.communicate(b"\n")
    wait = "print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", wait], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as idle:
        assert idle.stdout is not None
        idle.stdout.readline()  # its start is over
        meter = CpuMeter({"idle": idle.pid})
        subprocess.run([sys.executable, "-c", spin], input=b"\n", check=True)
        used = meter.used()
        idle.communicate(b"\n")
    assert used.seconds[LOAD_GENERATOR] >= 0.25
    assert used.seconds["idle"] < 0.2


def test_memory_is_that_of_the_process() -> None:
    assert memory_bytes({"this": os.getpid()})["this"] > 10 * 2**20


def test_the_costliest_functions_come_first_and_waiting_costs_nothing() -> None:
    stacks = ["run (a.py);parse (b.py) 30", "run (a.py) 10", "run (a.py);epoll_wait (libc.so.6) 1000"]
    first, second = costliest(stacks).splitlines()[2:]
    assert first.split("|")[1:4] == [" parse (b.py) ", "  75.0% ", "              75.0% "]
    assert second.split("|")[1:4] == [" run (a.py)   ", "  25.0% ", "             100.0% "]


def test_a_table_is_markdown_with_aligned_columns() -> None:
    assert table(["", "a"], [["one", "1"], ["three", "1,000"]]).splitlines() == [
        "|       |     a |",
        "| :---- | ----: |",
        "| one   |     1 |",
        "| three | 1,000 |",
    ]


def test_memory_of_further_series_is_what_the_load_has_added_that_made_them() -> None:
    loads = {
        "few": _figures(Workload(series=10), {"aggregator": 1_000, "receiver": 1_000, "prometheus": 1_000}),
        "other tenants": _figures(
            Workload(series=10, tenants=10), {"aggregator": 5_000, "receiver": 2_000, "prometheus": 9_000}
        ),
        "many": _figures(Workload(series=100), {"aggregator": 14_000, "receiver": 2_900, "prometheus": 54_000}),
    }
    assert memory_growth(loads) == (
        "Bytes of memory for each further live series: aggregator 100, receiver 10, prometheus 500."
    )


def test_latencies_are_taken_at_half_of_what_is_sustained_and_at_a_rate_that_all_machines_share() -> None:
    usual, crowd = Workload(series=10_000), Workload(series=10_000, connections=1_000)
    assert paced_loads(600_000.0) == {
        "half as fast": (usual, 300_000.0),
        "100,000 metrics/s": (usual, 100_000),
        "1,000 clients": (crowd, 100_000),
    }
    assert paced_loads(120_000.0) == {"half as fast": (usual, 60_000.0), "1,000 clients": (crowd, 60_000.0)}


def _figures(workload: Workload, memory: Mapping[str, int]) -> Figures:
    outcome = Outcome(
        seconds=1.0,
        began=0.0,
        sent=1,
        answered=1,
        accepted=100,
        accepted_in_time=100,
        statuses={"202": 1},
        errors={},
        p50_ms=1.0,
        p95_ms=1.0,
        p99_ms=1.0,
        late_ratio=0.0,
        most_late_ms=0.0,
    )
    return Figures(
        workload=workload,
        outcome=outcome,
        visible=100,
        visible_seconds=1.0,
        delay_p50_seconds=1.0,
        delay_p95_seconds=1.0,
        log_append_p99_ms=1.0,
        cpu=CpuUse(elapsed_seconds=1.0, seconds={}, foreign_cores=0.0),
        memory_bytes=memory,
    )
