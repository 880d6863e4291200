"""What alerts see increase is exposed as 0 before it happens: else the first failure of a process is no increase."""

from typing import Any

import grpc
from prometheus_client import REGISTRY

from chassis.clock import SystemClock
from chassis.grpc_client import ServiceChannel
from services.auth.mails import MailPurpose
from services.auth.outbox import Sender
from services.gateway.ingestion_streams import IngestionStreams
from services.ingest.lane import Lane
from services.ingest.sinks.remote_write import RemoteWrite

_NOTHING: Any = None


def _exposed(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_failures_of_a_lane_and_its_sinks_are_exposed_as_0_before_the_first() -> None:
    sink = RemoteWrite(_NOTHING, _NOTHING, name="new")
    Lane(93, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, [sink], _NOTHING, SystemClock())
    assert _exposed("pulsegate_lanes_lost_total", lane="93") == 0
    for outcome in ("quarantined", "too_old", "given_up"):
        assert _exposed("pulsegate_sink_samples_total", sink="new", outcome=outcome) == 0


def test_mails_that_were_sent_and_failures_are_exposed_as_0_before_the_first() -> None:
    needs = (_NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING)
    Sender(*needs, SystemClock(), sender="", console_url=None)
    for purpose in MailPurpose:
        for result in ("sent", "failed", "refused", "given_up"):
            assert _exposed("pulsegate_auth_mails_total", purpose=purpose, result=result) is not None


async def test_calls_to_receivers_turned_away_are_exposed_as_0_before_the_first() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        IngestionStreams(ServiceChannel("new", channel, _NOTHING), streams=1, reset_seconds=1, timeout_seconds=1)
    assert _exposed("pulsegate_gateway_shed_total", upstream="new") == 0
