"""Exemplars: from a request to Prometheus' query_exemplars."""

import time
from typing import Any

import aiohttp

from tests.integration.ingest.pipeline import PATIENCE_SECONDS, Pipeline
from tests.waiting import eventually

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def exemplars(pipeline: Pipeline, expression: str) -> dict[str, Any]:
    """Value and labels of the exemplars of each series, by its name and bucket."""
    query = expression.replace("$project", f'project_id="{pipeline.project_id}"')
    asked = {"query": query, "start": str(time.time() - 600), "end": str(time.time() + 600)}
    url = f"{pipeline.prometheus_url}/api/v1/query_exemplars"
    async with aiohttp.ClientSession() as session, session.get(url, params=asked) as response:
        body = await response.json()
        assert body["status"] == "success", body
    return {
        " ".join(filter(None, (each["seriesLabels"]["__name__"], each["seriesLabels"].get("le")))): [
            (float(one["value"]), one["labels"]) for one in each["exemplars"]
        ]
        for each in body["data"]
    }


async def test_the_newest_exemplar_of_a_series_is_shown_with_its_commit(pipeline: Pipeline) -> None:
    pipeline.define("orders_total", labels=[{"name": "plan"}])
    pipeline.define("load_seconds", "histogram", buckets=[0.1, 1])
    pipeline.define("wait_seconds", "histogram", native_histogram=True)
    pipeline.define("depth", "gauge")
    shown = {"traceId": TRACE, "spanId": SPAN}
    older = {"traceId": "1" * 32, "spanId": "2" * 16}
    async with pipeline.running():
        answer = await pipeline.send(
            {"name": "orders_total", "value": 2, "labels": {"plan": "pro"}, "exemplar": older},
            {"name": "orders_total", "value": 3, "labels": {"plan": "pro"}, "exemplar": shown},
            {"name": "load_seconds", "value": [0.05, 0.5], "exemplar": shown},
            {"name": "wait_seconds", "value": 4, "exemplar": shown},
            {"name": "depth", "value": 1, "exemplar": shown},
            {"name": "orders_total", "value": 1, "exemplar": {"traceId": "no id", "spanId": 3}},
        )
        assert (answer.accepted, list(answer.rejected)) == (6, [])
        await pipeline.expect("sum(orders_total{$project})", 6)

        async def found() -> bool:
            return len(await exemplars(pipeline, '{__name__=~".+", $project}')) == 3

        await eventually(found, within_seconds=PATIENCE_SECONDS, what="three series show exemplars")
        labels = {"trace_id": TRACE, "span_id": SPAN}
        assert await exemplars(pipeline, '{__name__=~".+", $project}') == {
            "orders_total": [(3.0, labels)],
            "load_seconds_bucket 1.0": [(0.5, labels)],
            "wait_seconds": [(4.0, labels)],
        }
        assert await pipeline.value("depth{$project}") == 1
