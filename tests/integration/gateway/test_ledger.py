"""The ledger's routes: what reaches the receiver, and the JSON that comes back, to the letter of the contract."""

import pytest

from chassis.errors import Internal
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from tests.integration.gateway.fakes import PROJECT
from tests.integration.gateway.running import Gateway, StartGateway

LEDGER = f"/api/v1/projects/{PROJECT}/ledger"
MOMENT, MOMENT_MS = "2026-01-31T08:15:30.123Z", 1_769_847_330_123


async def test_the_lines_of_a_project(gateway: Gateway) -> None:
    line = pb.LedgerLine(
        metric="orders_total",
        hour_ms=MOMENT_MS,
        received=10,
        accepted=8,
        rejected={"VALUE_NEGATIVE": 2},
        duplicate=3,
        committed=5,
        folded=1,
    )
    gateway.ingest.answers["GetLedger"] = pb.GetLedgerResponse(
        lines=[line], delivered_until_ms={"remote_write": MOMENT_MS}, next_page_token="there"
    )
    answer = await gateway.call(
        "GET",
        f"{LEDGER}?from=2026-01-31T00:00:00Z&to=2026-02-01T00:00:00Z&metric=orders_total&pageToken=here",
        credential=gateway.auth.new_session(),
    )
    assert answer.status == 200
    assert answer.json == {
        "items": [
            {
                "metric": "orders_total",
                "from": MOMENT,
                "received": 10,
                "accepted": 8,
                "rejected": {"VALUE_NEGATIVE": 2},
                "duplicate": 3,
                "committed": 5,
                "folded": 1,
            }
        ],
        "nextPageToken": "there",
        "deliveredUntil": {"remote_write": MOMENT},
    }
    (request,) = gateway.ingest.requests("GetLedger")
    assert request == pb.GetLedgerRequest(
        from_ms=1_769_817_600_000, to_ms=1_769_904_000_000, metric="orders_total", page_token="here"
    )


async def test_without_a_span_the_last_day_is_asked_for(gateway: Gateway) -> None:
    gateway.ingest.answers["GetLedger"] = pb.GetLedgerResponse()
    answer = await gateway.call("GET", LEDGER, credential=gateway.auth.new_session())
    assert (answer.status, answer.json) == (200, {"items": [], "nextPageToken": "", "deliveredUntil": {}})
    (request,) = gateway.ingest.requests("GetLedger")
    assert request.to_ms - request.from_ms == 24 * 3600 * 1000


@pytest.mark.parametrize("moment", ["yesterday", "", "0001-01-01", "9999-12-31T23:59:59Z", "1"])
async def test_a_moment_that_is_none_is_refused(gateway: Gateway, moment: str) -> None:
    answer = await gateway.call("GET", f"{LEDGER}?from={moment}", credential=gateway.auth.new_session())
    assert (answer.status, answer.json["error"]["code"]) == (422, "VALIDATION_FAILED")
    assert set(answer.json["error"]["details"]["fields"]) == {"from"}


async def test_what_no_database_takes_is_refused_before_it_is_asked_for(start_gateway: StartGateway) -> None:
    async with start_gateway(request_rules="detect") as gateway:
        gateway.ingest.answers["GetLedger"] = Internal("a database refuses this")
        person = gateway.auth.new_session()
        path = f"{LEDGER}?metric=a%00&pageToken=%00"
        refused = [await gateway.call("GET", path, credential=person) for _ in range(10)]
        assert {answer.status for answer in refused} == {422}
        assert set(refused[0].json["error"]["details"]["fields"]) == {"metric", "pageToken"}
        gateway.ingest.answers["GetLedger"] = pb.GetLedgerResponse()
        assert (await gateway.call("GET", LEDGER, credential=person)).status == 200


async def test_the_last_rejections_come_with_advice(gateway: Gateway) -> None:
    rejection = pb.LastRejection(
        metric="nope", code="METRIC_NOT_DEFINED", count=3, example="no metric 'nope'", last_ms=MOMENT_MS
    )
    gateway.ingest.answers["ListRejections"] = pb.ListRejectionsResponse(rejections=[rejection])
    path = f"/api/v1/projects/{PROJECT}/rejections"
    answer = await gateway.call("GET", path, credential=gateway.auth.new_session())
    assert answer.json["nextPageToken"] == ""
    (item,) = answer.json["items"]
    assert "Define the metric" in item.pop("advice")
    assert item == {
        "metric": "nope",
        "code": "METRIC_NOT_DEFINED",
        "count": 3,
        "message": "no metric 'nope'",
        "lastAt": MOMENT,
    }
