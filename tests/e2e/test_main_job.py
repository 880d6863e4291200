"""Sign up → define → generate a client → run it → exact numbers in Prometheus."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.e2e.api import Api, Project

pytestmark = pytest.mark.timeout(120)

_HOST_PROGRAM = """
import sys
from pulsegate_metrics import Metrics

metrics = Metrics(queue_directory=sys.argv[1])
for number in range(250):
    metrics.orders_total(plan="pro" if number % 5 else "free")
    metrics.checkout_seconds([0.2, 3.0], step="pay")
metrics.queue_depth(12)
assert metrics.flush(20), metrics.stats
metrics.close()
print(metrics.stats)
"""


async def test_the_generated_python_client_delivers_exact_numbers(project: Project, tmp_path: Path) -> None:
    await project.define("orders_total", labels=[{"name": "plan", "required": True, "values": ["free", "pro"]}])
    await project.define("queue_depth", "gauge")
    await project.define(
        "checkout_seconds", "histogram", unit="seconds", buckets=[0.5, 1.0], labels=[{"name": "step", "required": True}]
    )
    generated = await project.api.call(
        "GET",
        f"/api/v1/projects/{project.id}/client",
        credential=project.token,
        params={"language": "python", "keyId": project.publishable_key_id},
    )
    assert generated.status == 200, generated.text
    assert "attachment" in generated.headers["Content-Disposition"]
    (tmp_path / "pulsegate_metrics.py").write_text(generated.text)
    (tmp_path / "host.py").write_text(_HOST_PROGRAM)

    host = await asyncio.create_subprocess_exec(
        sys.executable,
        "host.py",
        "queue",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await host.communicate()
    assert host.returncode == 0, output.decode()

    await project.shows('orders_total{plan="pro"}', 200)
    await project.shows('orders_total{plan="free"}', 50)
    await project.shows("queue_depth", 12)
    await project.shows('checkout_seconds_bucket{step="pay", le="0.5"}', 250)
    await project.shows('checkout_seconds_bucket{step="pay", le="+Inf"}', 500)
    await project.shows('checkout_seconds_count{step="pay"}', 500)
    assert await project.value('checkout_seconds_sum{step="pay"}') == pytest.approx(250 * 3.2)


async def test_a_new_definition_may_be_used_at_once(project: Project) -> None:
    for number in range(20):
        await project.define(f"fresh_{number}_total")
        answer = await project.send({"name": f"fresh_{number}_total", "value": 1})
        assert answer.status == 202, answer.text


async def test_a_changed_definition_may_be_used_at_once(project: Project) -> None:
    metric = await project.define("widened_total", labels=[{"name": "plan", "values": ["free"]}])
    for plan in ("pro", "team", "trial"):
        refused = await project.send({"name": "widened_total", "value": 1, "labels": {"plan": plan}})
        assert refused.json["error"]["details"]["rejected"][0]["code"] == "LABEL_VALUE_NOT_ALLOWED"
        values = [*metric["labels"][0]["values"], plan]
        metric = await project.api.expect(
            200,
            "PUT",
            f"/api/v1/projects/{project.id}/metrics/{metric['id']}",
            {
                "name": "widened_total",
                "type": "counter",
                "help": metric["help"],
                "labels": [{"name": "plan", "values": values}],
            },
            credential=project.token,
            headers={"If-Match": f'"{metric["version"]}"'},
        )
        taken = await project.send({"name": "widened_total", "value": 1, "labels": {"plan": plan}})
        assert taken.status == 202, taken.text


@pytest.mark.alone
async def test_a_deleted_definition_refuses_data_within_a_second_and_ends_its_series(project: Project) -> None:
    metric = await project.define("doomed_total")
    assert (await project.send({"name": "doomed_total", "value": 1})).status == 202
    await project.shows("doomed_total", 1)
    path = f"/api/v1/projects/{project.id}/metrics/{metric['id']}"
    assert (await project.api.call("DELETE", path, credential=project.token)).status == 204
    await asyncio.sleep(1.0)  # the promise is one second, so this is what is tested
    refused = await project.send({"name": "doomed_total", "value": 1})
    assert (refused.status, refused.code) == (422, "BATCH_REJECTED")
    assert refused.json["error"]["details"]["rejected"][0]["code"] == "METRIC_NOT_DEFINED"
    await project.shows("doomed_total", None)


@pytest.mark.alone
async def test_a_metric_is_visible_within_five_seconds(project: Project) -> None:
    await project.define("seen_total")
    assert (await project.send({"name": "seen_total", "value": 1})).status == 202
    await project.shows("seen_total", 1, within_seconds=5.0)


async def test_the_first_page_says_what_to_do(api: Api) -> None:
    answer = await api.call("GET", "/")
    assert answer.status == 200
    assert "text/html" in answer.headers["Content-Type"]
    assert "/api/v1/auth/signup" in answer.text
