"""Native histograms and exemplars through the public interface, with OpenTelemetry's SDK too."""

import asyncio
import time

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from tests.e2e.api import Project
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def traces(project: Project, expression: str) -> list[str]:
    """The traces of the exemplars that an expression's series show."""
    asked = {"query": expression, "start": str(time.time() - 600), "end": str(time.time() + 600)}
    answer = await project.api.call(
        "GET", "/prometheus/api/v1/query_exemplars", credential=project.secret_key, params=asked
    )
    assert answer.status == 200, answer.text
    return [each["labels"]["trace_id"] for series in answer.json["data"] for each in series["exemplars"]]


async def expect_trace(project: Project, expression: str) -> None:
    async def shown() -> bool:
        return set(await traces(project, expression)) == {TRACE}

    await eventually(shown, within_seconds=60.0, what=f"{expression} shows its exemplar")


async def test_a_native_histogram_and_its_exemplar_through_the_gateway(project: Project) -> None:
    defined = await project.define("wait_seconds", "histogram", unit="seconds", nativeHistogram=True)
    assert (defined["nativeHistogram"], defined["buckets"]) == (True, [])
    exemplar = {"traceId": TRACE, "spanId": SPAN}
    answer = await project.send({"name": "wait_seconds", "value": [0.1, 3, 3.1], "exemplar": exemplar})
    assert (answer.status, answer.json) == (202, {"accepted": 1, "rejected": []}), answer.text
    await project.shows("histogram_count(wait_seconds)", 3)
    assert await project.value("histogram_sum(wait_seconds)") == pytest.approx(6.2)
    median = await project.value("histogram_quantile(0.5, wait_seconds)")
    assert median == pytest.approx(3, rel=0.1)
    await expect_trace(project, "wait_seconds")


async def test_exponential_histograms_of_the_opentelemetry_sdk_count_exactly(project: Project) -> None:
    await project.define("wait_seconds", "histogram", unit="seconds", nativeHistogram=True)
    exporter = OTLPMetricExporter(
        endpoint=f"{project.api.base_url}/v1/metrics",
        headers={"Authorization": f"Bearer {project.secret_key}"},
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()},
    )
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)])
    wait = provider.get_meter("shop").create_histogram("wait", unit="s")
    span = NonRecordingSpan(SpanContext(int(TRACE, 16), int(SPAN, 16), is_remote=False, trace_flags=TraceFlags(1)))
    for round_number in range(3):
        with trace.use_span(span):
            for value in range(1, 101):
                wait.record(value * 10**round_number)
        assert await asyncio.to_thread(provider.force_flush)
    await asyncio.to_thread(provider.shutdown)
    await project.shows("histogram_count(wait_seconds)", 300)
    assert await project.value("histogram_sum(wait_seconds)") == 5050 * 111
    assert await project.value("histogram_quantile(0.5, wait_seconds)") == pytest.approx(455, rel=0.1)
    await expect_trace(project, "wait_seconds")
