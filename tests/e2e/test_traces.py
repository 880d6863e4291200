"""What a client's trace shows of the running suite: one trace through all of it, found from metrics and logs too."""

import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from deploy.local.layout import Ports
from tests.e2e.api import Project, connected, sign_up
from tests.fast_prometheus import FastPrometheus
from tests.suite_running import TIRELESS, Suite
from tests.suite_servers import running
from tests.trace_collector import Collector, collecting
from tests.waiting import eventually, wait_for

pytestmark = pytest.mark.timeout(120)

_BATCH = "/pulsegate.ingest.v1.IngestService/StreamBatches"
_DEFINE = "/pulsegate.config.v1.DefinitionService/CreateMetric"

#: Service, name and parent of a span; the client's own is none of ours.
Span = tuple[str, str, str]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced_suite(start_suite: Callable[..., Suite], collector: Collector) -> Iterator[Suite]:
    """One that traces what its clients trace, and nothing else."""
    told = {"PULSEGATE_OTLP_ENDPOINT": collector.endpoint, "PULSEGATE_TRACES_SAMPLER": "parentbased_always_off"}
    suite = start_suite(**TIRELESS, **told)
    yield suite
    suite.stop()


@pytest.fixture
async def traced_project(traced_suite: Suite) -> AsyncIterator[Project]:
    async with connected(traced_suite.base_url) as api:
        project = await sign_up(api)
        await project.define("orders_total")
        await project.send({"name": "orders_total", "value": 1})  # from here on the receiver knows the metric
        yield project


class Request:
    """A client's trace."""

    def __init__(self) -> None:
        self.trace_id, self.span_id = secrets.token_hex(16), secrets.token_hex(8)
        self.headers = {"traceparent": f"00-{self.trace_id}-{self.span_id}-01"}

    def seen_by(self, collector: Collector) -> set[Span]:
        spans = [span for span in tuple(collector.spans) if span.trace_id.hex() == self.trace_id]
        names = {span.span_id: span.name for span in spans} | {bytes.fromhex(self.span_id): "client"}
        return {(collector.services[span.span_id], span.name, names.get(span.parent_span_id, "")) for span in spans}


def expect(collector: Collector, request: Request, spans: set[Span]) -> set[Span]:
    """All spans of the trace once those named have arrived; none of them lacks its parent."""
    wait_for(lambda: spans <= request.seen_by(collector), within_seconds=30, what=str(spans))
    wait_for(lambda: all(parent for *_, parent in request.seen_by(collector)), what="every parent is there")
    return request.seen_by(collector)


async def test_one_trace_leads_from_a_clients_request_to_the_sink(
    traced_project: Project, traced_suite: Suite, collector: Collector
) -> None:
    request, batch = Request(), {"metrics": [{"name": "orders_total", "value": 1}]}
    key = traced_project.secret_key
    await traced_project.api.expect(202, "POST", "/api/v1/metrics", batch, credential=key, headers=request.headers)
    await traced_project.shows("orders_total", 2)
    seen = expect(
        collector,
        request,
        {
            ("gateway", "POST /api/v1/metrics", "client"),
            ("gateway", _BATCH, "POST /api/v1/metrics"),
            ("ingest-receiver", "receive batch", _BATCH),
            ("ingest-receiver", "ingest publish", "receive batch"),
            ("ingest-aggregator", "ingest commit", "receive batch"),
            ("ingest-aggregator", "postgres", "ingest commit"),
            ("ingest-aggregator", "ingest delivery", "ingest commit"),
        },
    )
    assert len({name for _, name, _ in seen}) == 7, seen
    # What was not traced by its client is in no trace of its own either.
    assert all(span.parent_span_id for span in collector.spans)


async def test_a_request_of_the_console_is_one_trace_through_auth_and_config(
    traced_project: Project, traced_suite: Suite, collector: Collector
) -> None:
    request = Request()
    await traced_project.api.expect(
        201,
        "POST",
        route := f"/api/v1/projects/{traced_project.id}/metrics",
        {"name": "visits_total", "type": "counter", "help": "Visits."},
        credential=traced_project.token,
        headers=request.headers,
    )
    route = route.replace(traced_project.id, "{projectId}")
    seen = expect(
        collector,
        request,
        {("gateway", f"POST {route}", "client"), ("config", _DEFINE, _DEFINE), ("config", "postgres", _DEFINE)},
    )
    assert {("gateway", _DEFINE, f"POST {route}")} <= seen
    served = [json.loads(line) for line in traced_suite.log("gateway").splitlines() if request.trace_id in line]
    assert [line["route"] for line in served if line["event"] == "request served"] == [route]


async def test_a_measured_request_leads_to_its_trace(
    traced_project: Project,
    traced_suite: Suite,
    prometheus_binary: Path,
    tmp_path: Path,
    port_blocks: Callable[[], Ports],
) -> None:
    server = FastPrometheus(
        binary=prometheus_binary,
        folder=tmp_path / "prometheus",
        port=port_blocks().public,
        log=tmp_path / "prometheus.log",
        scraped={"gateway": traced_suite.ports.operations("gateway")},
    )
    request = Request()
    with running(server):
        async with aiohttp.ClientSession() as session:

            async def exemplars() -> set[str]:
                # Again each time, because what was observed before the first scrape is no news.
                await traced_project.api.call("GET", "/api/v1/me", headers=request.headers)
                return await _exemplars(session, server.url)

            async def found() -> bool:
                return request.trace_id in await exemplars()

            await eventually(found, within_seconds=30, what="the request's trace among the exemplars")


async def _exemplars(session: aiohttp.ClientSession, prometheus: str) -> set[str]:
    asked = {"query": "pulsegate_http_request_duration_seconds_bucket", "start": "0", "end": "9999999999"}
    async with session.get(f"{prometheus}/api/v1/query_exemplars", params=asked) as response:
        series = (await response.json())["data"]
    return {exemplar["labels"]["trace_id"] for one in series for exemplar in one["exemplars"]}
