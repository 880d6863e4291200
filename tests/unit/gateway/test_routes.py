"""What follows from a row of the table of routes alone, shown with rows that no resource has."""

from collections.abc import AsyncIterator, Sequence

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from services.gateway.http_api import Api
from services.gateway.middlewares import Pipeline, Stage
from services.gateway.request_rules import RequestRules
from services.gateway.routes import Audience, Operation, Route
from services.gateway.shares import HeldBytes

Client = TestClient[web.Request, web.Application]


class Made:
    """An ingestion route, a script and a page's route."""

    title = "Made"

    def routes(self) -> Sequence[Route]:
        nothing = Operation("Nothing", {204: None})
        return [
            Route("POST", "/api/v2/lines/{group:.+}", self.answer, Audience.INGESTION, nothing),
            Route("GET", "/sdk/v2/{name:[^.]+}.js", self.answer, Audience.ANYBODY, nothing),
            Route("POST", "/api/v2/projects", self.answer, Audience.WRITE, nothing),
        ]

    async def answer(self, _request: web.Request) -> web.Response:
        return web.Response(status=204)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    pipeline = Pipeline(
        RequestRules("off"),
        HeldBytes("answers", 1 << 20),
        timeout_seconds=5,
        slow_client_seconds=5,
        cors_origins=frozenset(),
    )
    stages: dict[Audience, Sequence[Stage]] = {audience: [] for audience in Audience}
    async with TestClient(TestServer(Api([Made()], stages, pipeline).app)) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/api/v2/lines/a/b", "POST", 204), ("/sdk/v2/a.js", "GET", 204), ("/api/v2/projects", "POST", 403)],
)
async def test_pages_of_any_origin_may_send_batches_and_load_scripts(
    client: Client, path: str, method: str, status: int
) -> None:
    headers = {"Origin": "https://anything.example", "Access-Control-Request-Method": method}
    answer = await client.options(path, headers=headers)
    assert answer.status == status
    assert answer.headers.get("Access-Control-Allow-Origin") == ("*" if status == 204 else None)


async def test_batches_alone_are_not_logged_one_by_one(
    client: Client, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    await client.post("/api/v2/lines/a/b")
    await client.post("/api/v2/projects")
    logged = capsys.readouterr().out + caplog.text  # whichever an earlier test's configuration left in use
    assert ("/api/v2/projects" in logged, "/api/v2/lines" in logged) == (True, False)
