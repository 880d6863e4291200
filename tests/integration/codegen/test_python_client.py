"""Generated Python clients, each run in a process of its own against a scripted ingestion endpoint."""

import asyncio
import sys
from pathlib import Path

import pytest

from contracts.pulsegate.codegen.v1 import codegen_pb2
from contracts.pulsegate.config.v1.definitions_pb2 import Label
from tests.integration.codegen.ingestion import Ingestion
from tests.integration.codegen.service import KEY, Codegen
from tests.integration.codegen.upstreams import PROJECT, Upstreams, metric

_METRICS = [
    metric("checkout_completed_total", labels=[Label(name="plan", required=True, values=["free", "pro"])]),
    metric("queue_depth", "gauge", labels=[Label(name="region")]),
    metric("page_load_seconds", "histogram", unit="seconds"),
    metric("job_seconds", "summary", unit="seconds", labels=[Label(name="class"), Label(name="value", required=True)]),
]

_USE = """
from pulsegate_metrics import Metrics

metrics = Metrics()
for number in range(1000):
    metrics.checkout_completed_total(plan="pro" if number % 4 else "free")
metrics.checkout_completed_total(2.5, plan="pro")
metrics.queue_depth(7, region="eu")
metrics.queue_depth(5, timestamp=1_790_000_000.25)
metrics.page_load_seconds(0.25)
metrics.page_load_seconds([0.5, 0.75])
metrics.job_seconds(1.5, value_="x", class_="nightly")
metrics.job_seconds([2, 3], value_="x")
assert metrics.flush(10), metrics.stats
metrics.close()
assert metrics.stats.accepted == metrics.stats.recorded == 1007, metrics.stats
"""


async def _run(folder: Path, program: str) -> None:
    (folder / "use.py").write_text(program)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "use.py", cwd=folder, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, errors.decode()


@pytest.mark.parametrize("refusals", [[], [503, 429]], ids=["at once", "after refusals"])
async def test_a_generated_client_delivers_exactly_what_was_recorded(
    codegen: Codegen, upstreams: Upstreams, ingestion: Ingestion, tmp_path: Path, refusals: list[int]
) -> None:
    upstreams.config.metrics[PROJECT] = _METRICS
    ingestion.refusals = refusals
    client = await codegen.generate(language=codegen_pb2.LANGUAGE_PYTHON, endpoint=ingestion.url, publishable_key=KEY)
    assert (client.file_name, client.content_type) == ("pulsegate_metrics.py", "text/x-python; charset=utf-8")
    (tmp_path / client.file_name).write_bytes(client.content)

    await _run(tmp_path, _USE)

    assert ingestion.keys == {KEY}
    totals = ingestion.totals()
    assert totals.pop(("queue_depth", '{"region": "eu"}')) == 7
    assert totals.pop(("queue_depth", "{}")) == 5
    assert totals == {
        ("checkout_completed_total", '{"plan": "free"}'): 250,
        ("checkout_completed_total", '{"plan": "pro"}'): 752.5,
        ("page_load_seconds", "{}"): 1.5,
        ("job_seconds", '{"class": "nightly", "value": "x"}'): 1.5,
        ("job_seconds", '{"value": "x"}'): 5,
    }
    timestamps = [one["timestamp"] for one in ingestion.metrics if one["name"] == "queue_depth"]
    assert 1_790_000_000_250 in timestamps


async def test_a_client_without_an_embedded_key_takes_one(
    codegen: Codegen, upstreams: Upstreams, ingestion: Ingestion, tmp_path: Path
) -> None:
    upstreams.config.metrics[PROJECT] = _METRICS
    client = await codegen.generate(language=codegen_pb2.LANGUAGE_PYTHON, endpoint=ingestion.url)
    (tmp_path / client.file_name).write_bytes(client.content)

    await _run(
        tmp_path,
        "from pulsegate_metrics import Metrics\n"
        "metrics = Metrics(key='sk_given')\n"
        "metrics.checkout_completed_total(plan='pro')\n"
        "metrics.close()\n",
    )

    assert ingestion.keys == {"sk_given"}
    assert ingestion.totals() == {("checkout_completed_total", '{"plan": "pro"}'): 1}
