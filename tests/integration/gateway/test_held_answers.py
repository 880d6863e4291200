"""Large answers that are not read: what one tenant, or one address, may hold of them."""

import hashlib
import json
from collections.abc import Callable

import pytest

from contracts.pulsegate.auth.v1 import audit_pb2
from contracts.pulsegate.codegen.v1 import codegen_pb2
from contracts.pulsegate.config.v1 import definitions_pb2
from contracts.pulsegate.ingest.v1 import ingest_pb2
from tests.integration.gateway.fakes import PROJECT
from tests.integration.gateway.running import Gateway, StartGateway
from tests.integration.gateway.test_audit import AUDIT, ENTRY, OTHER_TENANT
from tests.waiting import eventually

#: More than kernels keep of what was not read.
LARGE = "x" * (14 << 20)
SHA256 = hashlib.sha256(LARGE.encode()).hexdigest()


def newest_script(gateway: Gateway, key: str) -> str:
    gateway.codegen.answers["GenerateClient"] = codegen_pb2.GenerateClientResponse(
        content=LARGE.encode(), content_type="text/javascript; charset=utf-8", sha256=SHA256
    )
    return f"/sdk/v1/{key}.js"


def pinned_script(gateway: Gateway, key: str) -> str:
    gateway.codegen.answers["GetArtifact"] = codegen_pb2.GetArtifactResponse(
        content=LARGE.encode(), content_type="text/javascript; charset=utf-8"
    )
    return f"/sdk/v1/{key}.{SHA256}.js"


def download(gateway: Gateway, _key: str) -> str:
    gateway.codegen.answers["GenerateClient"] = codegen_pb2.GenerateClientResponse(
        content=LARGE.encode(), content_type="text/x-python; charset=utf-8", sha256=SHA256
    )
    return f"/api/v1/projects/{PROJECT}/client?language=python"


def definitions(gateway: Gateway, _key: str) -> str:
    spec = definitions_pb2.MetricSpec(name="a_total", type=definitions_pb2.METRIC_TYPE_COUNTER, help=LARGE)
    metric = definitions_pb2.Metric(id=PROJECT, project_id=PROJECT, spec=spec, version=1)
    gateway.config.answers["ListMetrics"] = definitions_pb2.ListMetricsResponse(metrics=[metric])
    return f"/api/v1/projects/{PROJECT}/metrics"


def audit_page(gateway: Gateway, _key: str) -> str:
    document = json.dumps({**ENTRY, "details": {"name": LARGE}})
    gateway.auth.answers["ListAuditEntries"] = audit_pb2.ListAuditEntriesResponse(
        entries=[audit_pb2.SealedAuditEntry(sequence=7, document=document)], public_jwk_json="{}"
    )
    return AUDIT


def rejections(gateway: Gateway, _key: str) -> str:
    gateway.ingest.answers["ListRejections"] = ingest_pb2.ListRejectionsResponse(
        rejections=[ingest_pb2.LastRejection(metric="a_total", code="LABEL_UNKNOWN", count=1, example=LARGE)]
    )
    return f"/api/v1/projects/{PROJECT}/rejections"


async def is_held(gateway: Gateway, answers: int) -> bool:
    held = await gateway.shown('pulsegate_gateway_held_bytes{what="answers"}')
    return answers * len(LARGE) <= held <= answers * (15 << 20)


@pytest.mark.parametrize("asking", [newest_script, pinned_script, download, definitions, audit_page, rejections])
async def test_what_clients_do_not_read_of_a_tenants_is_bounded(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, asking: Callable[[Gateway, str], str]
) -> None:
    """Also where nobody is asked for more than a publishable key."""
    monkeypatch.setattr("services.gateway.app._MOST_ANSWER_BYTES", 8 * (15 << 20))
    async with start_gateway() as gateway:
        kind = "publishable" if asking in (newest_script, pinned_script) else "secret"
        key, other = (gateway.auth.new_key(kind, scopes=["config:read", "audit:read", "ledger:read"]) for _ in range(2))
        gateway.auth.move(other, OTHER_TENANT)

        async def status(credential: str) -> int:
            return (await gateway.call("GET", asking(gateway, credential), credential=credential)).status

        path = asking(gateway, key)
        async with gateway.not_reading(path, key), gateway.not_reading(path, key):
            await eventually(lambda: is_held(gateway, 2), what="two answers wait to be read")
            assert [await status(key) for _ in range(3)] == [503] * 3
            assert await status(other) == 200
        await eventually(lambda: is_held(gateway, 0), what="nothing is held for who has left")
        assert await status(key) == 200


async def test_what_is_held_of_a_tenants_scripts_is_taken_from_none_of_its_own_reads(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may load them who has seen a page."""
    monkeypatch.setattr("services.gateway.app._MOST_ANSWER_BYTES", 8 * (15 << 20))
    async with start_gateway() as gateway:
        key, reader = gateway.auth.new_key(), gateway.auth.new_key("secret", scopes=["config:read"])
        path = newest_script(gateway, key)
        async with gateway.not_reading(path, key), gateway.not_reading(path, key):
            await eventually(lambda: is_held(gateway, 2), what="two answers wait to be read")
            assert (await gateway.call("GET", path)).status == 503
            assert (await gateway.call("GET", definitions(gateway, ""), credential=reader)).status == 200


async def test_what_strangers_do_not_read_is_bounded_by_their_address(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.app._MOST_ANSWER_BYTES", 8 * (15 << 20))
    monkeypatch.setattr("services.gateway.http_api.reference._page", lambda _described: LARGE)
    async with start_gateway() as gateway:
        async with gateway.not_reading("/docs", ""), gateway.not_reading("/docs", ""):
            await eventually(lambda: is_held(gateway, 2), what="two answers wait to be read")
            assert (await gateway.call("GET", "/docs")).status == 503
            assert (await gateway.call("GET", "/")).status == 200
            key = gateway.auth.new_key()
            assert (await gateway.call("GET", newest_script(gateway, key))).status == 200
        await eventually(lambda: is_held(gateway, 0), what="nothing is held for who has left")
