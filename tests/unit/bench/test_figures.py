"""What is computed from what was measured."""

import math
import os
import subprocess
import sys

import pytest

from bench.exposition import buckets, quantile, total
from bench.processes import LOAD_GENERATOR, CpuMeter, memory_bytes
from bench.profiling import costliest
from bench.report import table

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
