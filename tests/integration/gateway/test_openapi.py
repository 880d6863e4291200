"""The OpenAPI document and its page; every other test of this folder compares the answers that it sees with it."""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone

import aiohttp
import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from contracts.pulsegate.config.v1 import definitions_pb2
from deploy.local.layout import Ports
from services.gateway import http_api
from services.gateway.http_api.openapi import document
from services.gateway.http_api.shapes import Told
from services.gateway.middlewares import Pipeline
from services.gateway.request_rules import RequestRules
from services.gateway.routes import Audience, Deprecation, Operation, Route
from services.gateway.shares import HeldBytes
from tests.integration.gateway.fakes import OTHER_PROJECT, PROJECT
from tests.integration.gateway.running import Gateway
from tests.openapi_conformance import Conformance


async def test_the_document_is_valid_openapi(gateway: Gateway) -> None:
    answer = await gateway.call("GET", "/api/v1/openapi.json")
    OpenAPIV31SpecValidator(answer.json).validate()
    assert answer.json["openapi"].startswith("3.1")
    assert answer.json["servers"] == [{"url": "https://metrics.example.com"}]


async def test_the_document_names_what_a_route_takes_answers_and_asks_for(gateway: Gateway) -> None:
    described = (await gateway.call("GET", "/api/v1/openapi.json")).json
    create = described["paths"]["/api/v1/projects/{projectId}/keys"]["post"]
    reference = create["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert described["components"]["schemas"][reference.rpartition("/")[2]]["additionalProperties"] is False
    assert {"RateLimit", "RateLimit-Policy", "X-Correlation-Id"} <= set(create["responses"]["201"]["headers"])
    assert "Retry-After" in create["responses"]["429"]["headers"]
    assert create["security"] == [{"accessToken": []}, {"secretKey": []}, {"apiKey": []}]
    ingest = described["paths"]["/api/v1/metrics"]["post"]
    assert {"accessToken": []} not in ingest["security"]
    size = described["paths"]["/api/v1/projects"]["get"]["parameters"][0]
    assert (size["name"], size["schema"]["maximum"]) == ("pageSize", 500)


async def test_scim_is_described_with_its_bounds_and_without_errors_that_it_does_not_know(gateway: Gateway) -> None:
    told = (await gateway.call("GET", "/api/v1/openapi.json")).json
    described = [one for path, of in told["paths"].items() if path.startswith("/scim/") for one in of.values()]
    assert len(described) == 5
    for operation in described:
        assert "422" not in operation["responses"], operation["operationId"]
    found = {one["name"]: one["schema"] for one in told["paths"]["/scim/v2/Users"]["get"]["parameters"]}
    bounds = {name: (found[name]["minimum"], found[name]["maximum"]) for name in ("startIndex", "count")}
    assert bounds == {"startIndex": (1, 999_999_999), "count": (0, 999_999_999)}
    schemas = told["components"]["schemas"]
    operations = schemas["ScimPatch"]["properties"]["Operations"]
    assert (operations["minItems"], operations["maxItems"]) == (1, 100)
    assert schemas["ScimOperation"]["properties"]["op"]["enum"] == ["add", "remove", "replace"]


@pytest.mark.parametrize("path", ["/api/v1/openapi.json", "/docs"])
async def test_what_a_client_has_is_not_sent_again(gateway: Gateway, path: str) -> None:
    first = await gateway.call("GET", path)
    again = await gateway.call("GET", path, headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status, again.status, again.body) == (200, 304, b"")


async def test_a_read_that_the_client_has_is_not_sent_again(gateway: Gateway) -> None:
    session = gateway.auth.new_session()
    path = f"/api/v1/projects/{PROJECT}/metrics"
    gateway.config.answers["ListMetrics"] = definitions_pb2.ListMetricsResponse()
    first = await gateway.call("GET", path, credential=session)
    assert first.headers["Cache-Control"] == "private, no-cache"
    known = {"If-None-Match": first.headers["ETag"]}
    again = await gateway.call("GET", path, credential=session, headers=known)
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert "RateLimit" in again.headers
    gateway.config.answers["ListMetrics"] = definitions_pb2.ListMetricsResponse(next_page_token="more")
    changed = await gateway.call("GET", path, credential=session, headers=known)
    assert changed.status == 200
    assert changed.headers["ETag"] != first.headers["ETag"]
    assert (await gateway.call("GET", path, headers=known)).status == 401


async def test_a_metric_is_revalidated_by_its_version(gateway: Gateway) -> None:
    spec = definitions_pb2.MetricSpec(name="a_total", type=definitions_pb2.METRIC_TYPE_COUNTER)
    metric = definitions_pb2.Metric(id=OTHER_PROJECT, spec=spec, version=3)
    gateway.config.answers["GetMetric"] = definitions_pb2.GetMetricResponse(metric=metric)
    path = f"/api/v1/projects/{PROJECT}/metrics/{OTHER_PROJECT}"
    session = gateway.auth.new_session()
    statuses = [
        (await gateway.call("GET", path, credential=session, headers={"If-None-Match": etag})).status
        for etag in ('"2"', '"3"', 'W/"3"', "*")
    ]
    assert statuses == [200, 304, 304, 304]


async def test_the_page_has_every_route_and_nothing_from_elsewhere(gateway: Gateway) -> None:
    described = (await gateway.call("GET", "/api/v1/openapi.json")).json
    page = await gateway.call("GET", "/docs")
    text = page.body.decode()
    assert all(f"<code>{path}</code>" in text for path in described["paths"])
    assert "<script" not in text
    assert not re.findall(r"(?:src|@import|url\()", text)
    links = set(re.findall(r'href="#([^"]+)"', text))
    assert links <= set(re.findall(r'id="([^"]+)"', text))
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]


async def test_parameters_are_checked_by_what_the_document_says(gateway: Gateway) -> None:
    session = gateway.auth.new_session()
    path = f"/api/v1/projects/{PROJECT}/client"
    answer = await gateway.call("GET", f"{path}?language=cobol&minify=perhaps", credential=session)
    assert (answer.status, set(answer.json["error"]["details"]["fields"])) == (422, {"language", "minify"})


async def test_lengths_are_checked_by_what_the_document_says(gateway: Gateway) -> None:
    session = gateway.auth.new_session()
    answer = await gateway.call("POST", "/api/v1/projects", credential=session, json={"name": "n" * 101, "nmae": 1})
    assert (answer.status, set(answer.json["error"]["details"]["fields"])) == (422, {"name", "nmae"})
    assert not gateway.auth.requests("CreateProject")


class Greeting(Told):
    words: str


class OldRoutes:
    """Two routes, of which one goes away."""

    title = "Greetings"

    def routes(self) -> Sequence[Route]:
        sunset = datetime(2026, 7, 1, 2, tzinfo=timezone(timedelta(hours=2)))
        going = Deprecation(since=datetime(2026, 1, 1, tzinfo=UTC), sunset=sunset, advice="/docs#greet")
        return [
            Route(
                "GET", "/v1/old", self.greet, Audience.OPEN, Operation("Greet as before", {200: Greeting}), False, going
            ),
            Route("GET", "/v1/new", self.greet, Audience.OPEN, Operation("Greet", {200: Greeting})),
        ]

    async def greet(self, request: web.Request) -> web.Response:
        return web.json_response({"words": 1} if "wrongly" in request.query else {"words": "hello"})


@pytest.fixture
async def greetings(port_blocks: Callable[[], Ports]) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a server that has `OldRoutes` alone."""
    pipeline = Pipeline(
        RequestRules("off"),
        HeldBytes("answers", 1 << 20),
        timeout_seconds=5,
        slow_client_seconds=5,
        cors_origins=frozenset(),
    )
    runner = web.AppRunner(http_api.Api([OldRoutes()], {Audience.OPEN: []}, pipeline).app)
    port = port_blocks().public
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield session
    finally:
        await runner.cleanup()


async def test_a_deprecated_route_says_so_in_every_answer_and_in_the_document(greetings: aiohttp.ClientSession) -> None:
    async with greetings.get("/v1/old") as old, greetings.get("/v1/new") as new:
        assert old.headers["Deprecation"] == "@1767225600"
        assert old.headers["Sunset"] == "Wed, 01 Jul 2026 00:00:00 GMT"
        assert old.headers["Link"] == '</docs#greet>; rel="deprecation"'
        assert "Deprecation" not in new.headers
    paths = document([OldRoutes()], server="https://metrics.example.com")["paths"]
    assert paths["/v1/old"]["get"]["deprecated"] is True
    assert "on Wed, 01 Jul 2026 00:00:00 GMT." in paths["/v1/old"]["get"]["description"]
    assert {"Deprecation", "Sunset"} <= set(paths["/v1/old"]["get"]["responses"]["200"]["headers"])
    assert "deprecated" not in paths["/v1/new"]["get"]


@pytest.mark.parametrize("path", ["/v1/new?wrongly", "/v1/new"])
async def test_an_answer_that_the_document_does_not_describe_is_found(
    greetings: aiohttp.ClientSession, path: str
) -> None:
    conformance = Conformance(document([OldRoutes()], server="https://metrics.example.com"))
    async with greetings.get(path) as answer:
        body = await answer.read()
        if "wrongly" in path:
            with pytest.raises(AssertionError, match="words"):
                conformance.check("GET", path, answer.status, answer.headers, body)
        else:
            conformance.check("GET", path, answer.status, answer.headers, body)
            with pytest.raises(AssertionError, match="418"):
                conformance.check("GET", path, 418, answer.headers, body)
            with pytest.raises(AssertionError, match="more"):
                conformance.check("GET", path, 200, answer.headers, b'{"words": "hello", "more": 1}')


class SameNames(OldRoutes):
    def routes(self) -> Sequence[Route]:
        return [*super().routes(), *super().routes()]


def test_two_routes_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="greetAsBefore"):
        document([SameNames()], server="https://metrics.example.com")
