"""Generated JavaScript clients, each run under Node against a scripted ingestion endpoint."""

import asyncio
import gzip
import shutil
from pathlib import Path
from typing import Any

import pytest

from contracts.pulsegate.codegen.v1 import codegen_pb2
from contracts.pulsegate.config.v1.definitions_pb2 import Label
from deploy.local.layout import CHECKOUT
from tests.integration.codegen.ingestion import Ingestion
from tests.integration.codegen.service import KEY, Codegen
from tests.integration.codegen.upstreams import PROJECT, Upstreams, metric

_METRICS = [
    metric("checkout_completed_total", labels=[Label(name="plan", required=True, values=["free", "pro"])]),
    metric("page_views_total", number=2),
    metric("queue_depth", "gauge", labels=[Label(name="region")], number=3),
    metric("page_load_seconds", "histogram", unit="seconds", number=4),
]

_RECORD = """
for (let number = 0; number < 1000; number++) {
  metrics.checkoutCompletedTotal({ plan: number % 4 ? "pro" : "free" });
}
metrics.checkoutCompletedTotal({ plan: "pro" }, 2.5);
metrics.pageViewsTotal();
metrics.pageViewsTotal(2);
metrics.pageViewsTotal({}, 3);
metrics.queueDepth({ region: "eu" }, 7);
metrics.queueDepth(5, 1790000000250);
metrics.pageLoadSeconds(0.25);
metrics.pageLoadSeconds([0.5, 0.75]);
metrics.pageLoadSeconds({}, 1);
if (!(await metrics.flush())) throw new Error(JSON.stringify(metrics.stats));
await metrics.close();
if (metrics.stats.accepted !== 1009) throw new Error(JSON.stringify(metrics.stats));
"""

_LOADING = {
    codegen_pb2.PACKAGING_MODULE: 'import {{ Client, Metrics }} from "./{file_name}";\nconst metrics = new Metrics();\n'
    "if (!(metrics instanceof Client)) throw new Error();\n",
    codegen_pb2.PACKAGING_SCRIPT: 'import vm from "node:vm";\nimport fs from "node:fs";\n'
    'vm.runInThisContext(fs.readFileSync("{file_name}", "utf8"));\nconst metrics = globalThis.pulsegate;\n'
    "if (!(metrics instanceof Pulsegate.Metrics && metrics instanceof Pulsegate.Client)) throw new Error();\n",
}


async def _run_under_node(folder: Path, program: str) -> None:
    node = shutil.which("node") or str(CHECKOUT / ".venv" / "bin" / "node")
    (folder / "use.mjs").write_text(program)
    process = await asyncio.create_subprocess_exec(node, "use.mjs", cwd=folder, stderr=asyncio.subprocess.PIPE)
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, errors.decode()


@pytest.mark.parametrize(
    ("packaging", "minify", "file_name"),
    [
        (codegen_pb2.PACKAGING_UNSPECIFIED, False, "pulsegate-metrics.mjs"),
        (codegen_pb2.PACKAGING_MODULE, True, "pulsegate-metrics.min.mjs"),
        (codegen_pb2.PACKAGING_SCRIPT, False, "pulsegate-metrics.js"),
        (codegen_pb2.PACKAGING_SCRIPT, True, "pulsegate-metrics.min.js"),
    ],
)
async def test_a_generated_client_delivers_exactly_what_was_recorded(
    codegen: Codegen,
    upstreams: Upstreams,
    ingestion: Ingestion,
    tmp_path: Path,
    packaging: Any,
    minify: bool,
    file_name: str,
) -> None:
    upstreams.config.metrics[PROJECT] = _METRICS
    ingestion.refusals = [503]
    client = await codegen.generate(
        language=codegen_pb2.LANGUAGE_JAVASCRIPT,
        endpoint=ingestion.url,
        publishable_key=KEY,
        packaging=packaging,
        minify=minify,
    )
    assert (client.file_name, client.content_type) == (file_name, "text/javascript; charset=utf-8")
    (tmp_path / file_name).write_bytes(client.content)

    loading = _LOADING[packaging or codegen_pb2.PACKAGING_MODULE].format(file_name=file_name)
    await _run_under_node(tmp_path, loading + _RECORD)

    assert ingestion.keys == {KEY}
    totals = ingestion.totals()
    assert totals.pop(("queue_depth", '{"region": "eu"}')) == 7
    assert totals.pop(("queue_depth", "{}")) == 5
    assert totals == {
        ("checkout_completed_total", '{"plan": "free"}'): 250,
        ("checkout_completed_total", '{"plan": "pro"}'): 752.5,
        ("page_views_total", "{}"): 6,
        ("page_load_seconds", "{}"): 2.5,
    }
    assert 1_790_000_000_250 in [one["timestamp"] for one in ingestion.metrics if one["name"] == "queue_depth"]


async def test_without_a_key_a_script_starts_nothing_and_its_class_takes_one(
    codegen: Codegen, upstreams: Upstreams, ingestion: Ingestion, tmp_path: Path
) -> None:
    upstreams.config.metrics[PROJECT] = _METRICS
    client = await codegen.generate(
        language=codegen_pb2.LANGUAGE_JAVASCRIPT,
        endpoint=ingestion.url,
        packaging=codegen_pb2.PACKAGING_SCRIPT,
        minify=True,
    )
    (tmp_path / client.file_name).write_bytes(client.content)

    await _run_under_node(
        tmp_path,
        'import vm from "node:vm";\nimport fs from "node:fs";\n'
        f'vm.runInThisContext(fs.readFileSync("{client.file_name}", "utf8"));\n'
        'if ("pulsegate" in globalThis) throw new Error();\n'
        f'const metrics = new Pulsegate.Metrics({{ key: "{KEY}" }});\n'
        "metrics.pageViewsTotal();\nawait metrics.close();\n",
    )

    assert ingestion.totals() == {("page_views_total", "{}"): 1}


async def test_the_script_for_a_page_stays_small(codegen: Codegen, upstreams: Upstreams) -> None:
    async def gzipped_bytes() -> int:
        client = await codegen.generate(
            language=codegen_pb2.LANGUAGE_JAVASCRIPT,
            publishable_key=KEY,
            packaging=codegen_pb2.PACKAGING_SCRIPT,
            minify=True,
        )
        return len(gzip.compress(client.content, 9))

    empty = await gzipped_bytes()
    upstreams.config.metrics[PROJECT] = _METRICS
    few = await gzipped_bytes()
    upstreams.config.metrics[PROJECT] = [metric(f"thing_{number}_done_total", number=number) for number in range(500)]
    many = await gzipped_bytes()

    print(f"script tag, gzipped: {empty} bytes without metrics, {few} with four, {many} with 500")
    runtime = len(gzip.compress((CHECKOUT / "sdk/browser/dist/runtime.min.js").read_bytes(), 9))
    assert empty < runtime + 300
    assert few < 4096
    assert (many - empty) / 500 < 30
