"""What is at fault in a body is told by member, however the wrong value reads."""

import time

import pytest

from services.gateway.http_api.definitions import NewMetric
from services.gateway.http_api.shapes import shaped

VALID = {"name": "orders_total", "type": "counter", "help": "Orders."}
OF_TYPES = "must be one of counter, gauge, histogram, summary"


@pytest.mark.parametrize(
    ("wrong", "faults"),
    [
        ({"type": "count"}, {"type": OF_TYPES}),
        ({"type": " - at `$.name`"}, {"type": OF_TYPES}),
        ({"help": 7}, {"help": "expected `str`, got `int`"}),
        ({"labels": [{"name": "plan", "values": ["free", 7]}]}, {"labels[0].values[1]": "expected `str`, got `int`"}),
    ],
)
def test_a_fault_stands_at_its_member(wrong: dict[str, object], faults: dict[str, str]) -> None:
    assert shaped(VALID | wrong, NewMetric)[1] == faults


def test_a_wrong_value_is_read_once() -> None:
    began = time.thread_time()
    _, faults = shaped(VALID | {"type": " - at `$" * 32_000}, NewMetric)
    assert time.thread_time() - began < 0.5
    assert faults == {"type": OF_TYPES}
