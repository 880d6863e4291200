"""A request's trace: it goes on from the caller's and through to the services, and shows no secret."""

from chassis import tracing
from tests.integration.gateway.running import StartGateway
from tests.trace_collector import collecting

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLERS_SPAN = "b7ad6b7169203331"


async def test_a_request_continues_the_callers_trace(start_gateway: StartGateway) -> None:
    with collecting() as collector:
        with tracing.exporting("tests", collector.endpoint):
            async with start_gateway() as gateway:
                key = gateway.auth.new_key()
                parent = {"traceparent": f"00-{TRACE_ID}-{CALLERS_SPAN}-01"}
                answer = await gateway.call("POST", f"/api/v1/metrics?key={key}", data="{}", headers=parent)
                assert answer.status == 202
                await gateway.call("GET", f"/sdk/v1/{key}.js", headers=parent)
        spans = [span for span in collector.spans if span.trace_id.hex() == TRACE_ID]
    request = next(span for span in spans if span.name == "POST /api/v1/metrics")
    assert request.parent_span_id.hex() == CALLERS_SPAN
    attributes = {entry.key: entry.value for entry in request.attributes}
    assert attributes["http.response.status_code"].int_value == 202
    calls = [span for span in spans if span.name.endswith("IngestService/StreamBatches")]
    assert request.span_id in {span.parent_span_id for span in calls}
    assert key not in repr(collector.spans)
