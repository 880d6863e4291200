"""Queries over a real Prometheus that holds the series of two tenants."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import BasicAuth, web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler

from chassis.secrets import SecretFile
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from deploy.local.servers import Prometheus
from tests.integration.gateway.fakes import PROJECT, TENANT
from tests.integration.gateway.running import Answer, Gateway, StartGateway
from tests.remote_writing import add_series, write
from tests.suite_servers import RunningServer
from tests.unit.ingest.remote_write_schema import WriteRequest
from tests.waiting import eventually

API = "/prometheus/api/v1"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

OURS = {"tenant_id": TENANT, "project_id": PROJECT}
THEIRS = {
    "tenant_id": "0192f0c1-0000-7000-8000-0000000000a1",
    "project_id": "0192f0c1-0000-7000-8000-0000000000a2",
}


@pytest.fixture
async def prometheus(prometheus_server: RunningServer[Prometheus]) -> str:
    """The address of a Prometheus with one counter of ours and one of theirs under the same name."""
    written_ms = time.time_ns() // 1_000_000 - 2_000  # subqueries look at whole seconds that are over
    request = WriteRequest()
    for name, labels, owner, value in (
        ("checkout_total", {"plan": "pro"}, OURS, 3),
        ("checkout_total", {"plan": "free"}, OURS, 4),
        ("checkout_total", {"plan": "secret"}, THEIRS, 1000),
        ("only_theirs", {"hidden": "value"}, THEIRS, 1),
    ):
        add_series(request, {"__name__": name, **labels, **owner}, (written_ms, value))
        exemplar = request.timeseries[-1].exemplars.add(value=value, timestamp=written_ms)
        exemplar.labels.add(name="trace_id", value=owner["project_id"].replace("-", ""))
    await asyncio.to_thread(write, prometheus_server.server.url, request)
    return prometheus_server.server.url


@pytest.fixture
async def querying(start_gateway: StartGateway, prometheus: str) -> AsyncIterator[Gateway]:
    async with start_gateway(prometheus_url=prometheus) as gateway:
        yield gateway


async def ask(gateway: Gateway, path: str, **parameters: str) -> Answer:
    """A GET with a secret key that may query."""
    key = gateway.auth.new_key("secret", scopes=["query:read"])
    return await gateway.call("GET", f"{API}/{path}", credential=key, params=parameters)


async def test_a_key_sees_its_projects_numbers(querying: Gateway) -> None:
    answer = await ask(querying, "query", query="sum by (plan) (checkout_total)")
    assert answer.status == 200
    found = {series["metric"]["plan"]: series["value"][1] for series in answer.json["data"]["result"]}
    assert found == {"pro": "3", "free": "4"}


async def test_what_prometheus_knows_of_a_query_is_passed_on_and_nothing_else(start_gateway: StartGateway) -> None:
    asked: list[dict[str, object]] = []

    async def prometheus(request: web.Request) -> web.Response:
        asked.append(dict(await request.post()))
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": []}})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", prometheus)
    known = {"time": "5", "stats": "all", "limit": "3", "lookback_delta": "1m"}
    async with TestServer(app) as server, start_gateway(prometheus_url=str(server.make_url("/"))) as gateway:
        answer = await ask(gateway, "query", query="up", timeout="1s", unknown="x", **known)
    assert answer.status == 200
    [passed_on] = [each for each in asked if "query" in each]
    assert passed_on.keys() == {"query", "timeout", *known}
    assert known.items() <= passed_on.items()


async def test_a_person_queries_by_form(querying: Gateway) -> None:
    now = time.time()
    form = {"query": "sum(checkout_total)", "start": str(now - 30), "end": str(now + 30), "step": "15"}
    answer = await querying.call(
        "POST", f"{API}/query_range?projectId={PROJECT}", credential=querying.auth.new_session(), data=form
    )
    assert answer.status == 200
    assert {value for _, value in answer.json["data"]["result"][0]["values"]} == {"7"}


@pytest.mark.parametrize(
    "expression",
    [
        "sum(checkout_total)",
        'sum({__name__=~".+"})',
        'sum({__name__="checkout_total", project_id=~".*", tenant_id=~".*"})',
        'sum(checkout_total{plan="pro"} or checkout_total)',
        "sum(max_over_time(checkout_total[5m:1s]))",
        "sum(last_over_time(checkout_total[5m]))",
        "sum(checkout_total) + 0 * count(checkout_total)",
        'sum(label_replace(checkout_total, "project_id", "x", "", ""))',
        'sum(checkout_total{plan=`"} or checkout_total{plan=~".*`}) or sum(checkout_total)',
        "sum(checkout_total * on (plan) group_left () checkout_total / checkout_total)",
        "sum(checkout_total unless only_theirs)",
        "sum(checkout_total # } or up{\n)",
        'sum(checkout_total{plan=~"pro|free"})',
        'sum(checkout_total{plan!~"fr.+|pro"} or checkout_total{plan!~`\\d`})',
    ],
)
async def test_no_expression_sees_another_tenants_numbers(querying: Gateway, expression: str) -> None:
    answer = await ask(querying, "query", query=expression)
    assert answer.status == 200, answer.json
    assert [series["value"][1] for series in answer.json["data"]["result"]] == ["7"]


@pytest.mark.parametrize(
    "expression",
    ["only_theirs", f'checkout_total{{project_id="{THEIRS["project_id"]}"}}', "up", "absent(nothing) - 1 > 0"],
)
async def test_what_is_not_the_projects_is_empty(querying: Gateway, expression: str) -> None:
    answer = await ask(querying, "query", query=expression)
    assert answer.json["data"]["result"] == []


async def test_labels_and_series_are_the_projects_own(querying: Gateway) -> None:
    labels = await ask(querying, "labels")
    assert labels.json["data"] == ["__name__", "plan", "project_id", "tenant_id"]
    matched = await ask(querying, "labels", **{"match[]": "only_theirs"})
    assert matched.json["data"] == []
    names = await ask(querying, "label/__name__/values")
    assert names.json["data"] == ["checkout_total"]
    tenants = await ask(querying, "label/tenant_id/values", **{"match[]": '{tenant_id=~".+"}'})
    assert tenants.json["data"] == [TENANT]
    series = await ask(querying, "series", **{"match[]": '{__name__=~".+"}'})
    assert {one["plan"] for one in series.json["data"]} == {"pro", "free"}


async def test_exemplars_are_the_projects_own(querying: Gateway) -> None:
    now = time.time()
    asked = {"start": str(now - 600), "end": str(now + 600)}
    for expression in ("checkout_total", '{__name__=~".+"}', "rate(checkout_total[5m]) + on () rate(only_theirs[5m])"):
        answer = await ask(querying, "query_exemplars", query=expression, **asked)
        assert answer.status == 200
        traces = {each["labels"]["trace_id"] for series in answer.json["data"] for each in series["exemplars"]}
        assert traces == {PROJECT.replace("-", "")}


async def test_several_matches_are_each_bound(querying: Gateway) -> None:
    key = querying.auth.new_key("secret", scopes=["query:read"])
    form = [("match[]", 'checkout_total{plan="pro"}'), ("match[]", "only_theirs")]
    answer = await querying.call("POST", f"{API}/series", credential=key, data=aiohttp.FormData(form))
    assert [one["plan"] for one in answer.json["data"]] == ["pro"]
    long = [("match[]", f'checkout_total{{plan!="{"x" * 200}"}}')] * 90
    refused = await querying.call("POST", f"{API}/series", credential=key, data=aiohttp.FormData(long))
    assert (refused.status, refused.json["errorType"]) == (400, "bad_data")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_expression_is_formatted_as_prometheus_does(querying: Gateway, method: str) -> None:
    key = querying.auth.new_key("secret", scopes=["query:read"])
    asked = {"query": "sum by(plan)(checkout_total)/  2 # of both"}
    named = {"params": asked} if method == "GET" else {"data": asked}
    answer = await querying.call(method, f"{API}/format_query", credential=key, **named)
    assert (answer.status, answer.json["data"]) == (200, "sum by (plan) (checkout_total) / 2")


async def test_metadata_are_of_the_projects_definitions(querying: Gateway) -> None:
    specs = [
        pb.MetricSpec(name="checkout_total", type=pb.METRIC_TYPE_COUNTER, help="Checkouts."),
        pb.MetricSpec(name="render_seconds", type=pb.METRIC_TYPE_HISTOGRAM, help="Rendering.", unit="seconds"),
    ]
    definitions = pb.GetProjectDefinitionsResponse(metrics=[pb.Metric(spec=spec) for spec in specs])
    querying.config.answers["GetProjectDefinitions"] = definitions
    checkouts = {"checkout_total": [{"type": "counter", "help": "Checkouts.", "unit": ""}]}
    renderings = {"render_seconds": [{"type": "histogram", "help": "Rendering.", "unit": "seconds"}]}
    assert (await ask(querying, "metadata")).json == {"status": "success", "data": {**checkouts, **renderings}}
    assert (await ask(querying, "metadata", metric="render_seconds")).json["data"] == renderings
    assert (await ask(querying, "metadata", limit="1", limit_per_metric="3")).json["data"] == checkouts
    assert (await ask(querying, "metadata", metric="only_theirs")).json["data"] == {}
    asked = [(seen.request.project_id, seen.principal and seen.principal.project_id) for seen in querying.config.seen]
    assert set(asked) == {(PROJECT, PROJECT)}
    assert all(seen.request.without_labels for seen in querying.config.seen), "these may be megabytes"


async def test_metadata_need_neither_prometheus_nor_another_scope_than_queries(gateway: Gateway) -> None:
    gateway.config.answers["GetProjectDefinitions"] = pb.GetProjectDefinitionsResponse()
    assert (await ask(gateway, "metadata")).json["data"] == {}
    reader = gateway.auth.new_key("secret", scopes=["config:read"])
    refused = await gateway.call("GET", f"{API}/metadata", credential=reader)
    assert (refused.status, refused.json["errorType"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("path", "parameters", "status", "kind"),
    [
        ("format_query", {"query": "up("}, 400, "bad_data"),
        ("format_query", {"query": "(" * 401 + "up" + ")" * 401}, 400, "bad_data"),
        ("metadata", {"limit": "many"}, 400, "bad_data"),
        ("query", {"query": "up("}, 400, "bad_data"),
        ("query", {}, 400, "bad_data"),
        ("query", {"query": 'x{a="b" or c="d"}'}, 400, "bad_data"),
        ("query", {"query": 'x{a=~"("}'}, 400, "bad_data"),
        ("series", {"match[]": 'x{a=~"("}'}, 400, "bad_data"),
        ("query", {"query": "up", "time": "yesterday"}, 400, "bad_data"),
        ("query", {"query": "up", "timeout": "soon"}, 400, "bad_data"),
        ("query", {"query": "up", "timeout": "nan"}, 400, "bad_data"),
        ("query", {"query": "up", "timeout": "inf"}, 400, "bad_data"),
        ("query", {"query": "holt_winters(up[5m], 0.5, 0.5)"}, 400, "bad_data"),
        ("query_range", {"query": "up", "start": "1", "end": "0", "step": "1"}, 400, "bad_data"),
        ("series", {}, 400, "bad_data"),
        ("series", {"match[]": "rate(up[5m])"}, 400, "bad_data"),
        ("label/no-label/values", {}, 400, "bad_data"),
        ("query", {"query": "checkout_total * on () checkout_total"}, 422, "execution"),
    ],
)
async def test_errors_have_prometheus_shape(
    querying: Gateway, path: str, parameters: dict[str, str], status: int, kind: str
) -> None:
    answer = await ask(querying, path, **parameters)
    assert answer.status == status
    assert set(answer.json) >= {"status", "errorType", "error"}
    assert (answer.json["status"], answer.json["errorType"]) == ("error", kind)
    assert answer.headers["X-Correlation-Id"]


async def test_parameters_of_the_form_come_before_those_of_the_address(querying: Gateway) -> None:
    key = querying.auth.new_key("secret", scopes=["query:read"])
    answer = await querying.call(
        "POST", f"{API}/query?query=only_theirs", credential=key, data={"query": "sum(checkout_total)"}
    )
    assert answer.json["data"]["result"][0]["value"][1] == "7"


async def test_a_form_is_a_form(querying: Gateway) -> None:
    key = querying.auth.new_key("secret", scopes=["query:read"])
    other = await querying.call("POST", f"{API}/query", credential=key, json={"query": "up"})
    assert (other.status, other.json["status"]) == (415, "error")
    broken = await querying.call("POST", f"{API}/query", credential=key, data=b"query=%ff", headers=FORM)
    assert broken.status == 400
    many = await querying.call("POST", f"{API}/query", credential=key, data=b"a=1&" * 200, headers=FORM)
    assert many.status == 400


async def test_an_asked_for_timeout_only_shortens(querying: Gateway) -> None:
    for timeout in ("1s", "0.5", "10h", "-1"):
        assert (await ask(querying, "query", query="up", timeout=timeout)).status == 200


async def test_without_prometheus_queries_answer_503_and_come_back(
    querying: Gateway, prometheus_server: RunningServer[Prometheus]
) -> None:
    with prometheus_server.away():
        answer = await ask(querying, "query", query="up")
        assert (answer.status, answer.json["errorType"]) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await querying.ingest_one(querying.auth.new_key())).status == 202

    async def back() -> bool:
        return (await ask(querying, "query", query="up")).status == 200

    await eventually(back, what="queries are answered again")


async def test_a_prometheus_that_hangs_is_not_waited_for(
    start_gateway: StartGateway, prometheus: str, prometheus_server: RunningServer[Prometheus]
) -> None:
    async with start_gateway(prometheus_url=prometheus, query_timeout_seconds=0.5) as gateway:
        with prometheus_server.paused():
            began = time.monotonic()
            answer = await ask(gateway, "query", query="up")
            assert time.monotonic() - began < 3
        assert (answer.status, answer.json["errorType"]) == (504, "timeout")


async def test_an_answer_that_is_too_large_is_refused(
    start_gateway: StartGateway, prometheus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.clients.prometheus._MOST_ANSWER_BYTES", 100)
    async with start_gateway(prometheus_url=prometheus) as gateway:
        shed = await gateway.shown('pulsegate_gateway_shed_total{upstream="answers"}')
        answer = await ask(gateway, "query", query='vector(1) or label_replace(vector(2), "x", "y", "", "")')
        assert (answer.status, answer.json["errorType"]) == (422, "execution")
        assert await gateway.shown('pulsegate_gateway_shed_total{upstream="answers"}') == shed


async def test_queries_of_clients_that_have_left_take_no_turns(start_gateway: StartGateway) -> None:
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        if "slow" in str((await request.post())["query"]):
            asked += 1
            await asyncio.Event().wait()
        return web.json_response({"status": "success", "data": []})

    async def all_turns_are_taken() -> bool:
        return asked == 4

    async with _serving(answer) as address, start_gateway(prometheus_url=address) as gateway:
        key = gateway.auth.new_key("secret", scopes=["query:read"])
        async with AsyncExitStack() as panels:
            for _ in range(20):
                await panels.enter_async_context(gateway.not_reading(f"{API}/query?query=slow", key))
            await eventually(all_turns_are_taken, what="the tenant has all of its turns")
        answered = await gateway.call("GET", f"{API}/query?query=up", credential=key)
        assert (answered.status, asked) == (200, 4)


async def test_queries_of_clients_that_left_before_they_were_known_are_not_asked(start_gateway: StartGateway) -> None:
    queries = []

    async def answer(request: web.Request) -> web.Response:
        queries.append(await request.post())
        return web.json_response({"status": "success", "data": []})

    async def is_asked() -> bool:
        return gateway.auth.asked > 0

    async with _serving(answer) as address, start_gateway(prometheus_url=address) as gateway:
        key = gateway.auth.new_key("secret", scopes=["query:read"])
        gateway.auth.answering.clear()
        async with gateway.not_reading(f"{API}/query?query=left", key):
            await eventually(is_asked, what="auth is asked who it is")
        await gateway.call("GET", "/health/live")  # meanwhile the gateway has seen that they left
        gateway.auth.answering.set()
        assert (await gateway.call("GET", f"{API}/query?query=up", credential=key)).status == 200
        assert len(queries) == 1


async def test_a_tenants_slow_queries_take_turns_and_leave_some_to_others(start_gateway: StartGateway) -> None:
    asked = 0
    release = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        if "slow" in str((await request.post())["query"]):
            asked += 1
            await release.wait()
        return web.json_response({"status": "success", "data": []})

    async def all_turns_are_taken() -> bool:
        return asked == 4

    async with _serving(answer) as address, start_gateway(prometheus_url=address) as gateway:
        key, other = (gateway.auth.new_key("secret", scopes=["query:read"]) for _ in range(2))
        gateway.auth.move(other, THEIRS["tenant_id"])
        path = f"{API}/query?query="
        panels = [asyncio.create_task(gateway.call("GET", f"{path}slow", credential=key)) for _ in range(20)]
        await eventually(all_turns_are_taken, what="the tenant has all of its turns")
        assert (await gateway.call("GET", f"{path}up", credential=other)).status == 200
        assert asked == 4
        release.set()
        assert {(await panel).status for panel in panels} == {200}


async def test_what_clients_do_not_read_of_answers_is_bounded(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.app._MOST_ANSWER_BYTES", 8 * len(_LARGE))

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=_LARGE, content_type="application/json")

    async with _serving(answer) as address, start_gateway(prometheus_url=address) as gateway:
        key, other = (gateway.auth.new_key("secret", scopes=["query:read"]) for _ in range(2))
        gateway.auth.move(other, THEIRS["tenant_id"])

        async def status(credential: str) -> int:
            return (await gateway.call("GET", f"{API}/query?query=up", credential=credential)).status

        async def held(answers: int) -> bool:
            return await gateway.shown('pulsegate_gateway_held_bytes{what="answers"}') == answers * len(_LARGE)

        path = f"{API}/query?query=up"
        async with gateway.not_reading(path, key), gateway.not_reading(path, key):
            await eventually(lambda: held(2), what="two answers wait to be read")
            assert {await status(key) for _ in range(10)} == {503}
            assert await status(other) == 200
        await eventually(lambda: held(0), what="nothing is held for those who left")
        assert await status(key) == 200


#: More than kernels keep of what was not read.
_LARGE = b'{"status":"success","data":"' + bytes(16 << 20).replace(b"\0", b"x") + b'"}'


async def test_a_prometheus_that_fails_is_given_a_rest(start_gateway: StartGateway) -> None:
    asked = 0

    async def fail(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"status": "error", "errorType": "internal", "error": "broken"}, status=500)

    async with _serving(fail) as address, start_gateway(prometheus_url=address) as gateway:
        answers = [await ask(gateway, "query", query="up") for _ in range(10)]
        assert [answer.status for answer in answers] == [500] * asked + [503] * (10 - asked)
        assert 0 < asked < 10


async def test_prometheus_is_asked_with_the_password_that_a_file_has_now(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    shown: list[str] = []

    async def note(request: web.Request) -> web.Response:
        shown.append(BasicAuth.decode(request.headers["Authorization"]).password)
        return web.json_response({"status": "success", "data": []})

    async with _serving(note) as address:
        file, there = tmp_path / "prometheus", address.removeprefix("http://")
        file.write_text(f"http://pulsegate:first@{there}")
        followed = SecretFile("PULSEGATE_PROMETHEUS_URL", file, str)
        async with start_gateway(prometheus_url=followed.current(), secrets={"prometheus_url": followed}) as gateway:

            async def is_shown(password: str) -> bool:
                assert (await ask(gateway, "query", query="up")).status == 200
                return shown[-1] == password

            await eventually(lambda: is_shown("first"))
            file.write_text(f"http://pulsegate:second@{there}/")
            await eventually(lambda: is_shown("second"))


async def _ready(_request: web.Request) -> web.Response:
    return web.Response()


@asynccontextmanager
async def _serving(handler: Handler) -> AsyncIterator[str]:
    """Something at the address of Prometheus."""
    app = web.Application()
    app.router.add_route("*", "/api/{path:.*}", handler)
    app.router.add_get("/-/ready", _ready)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_readiness_shows_prometheus_as_soft(querying: Gateway) -> None:
    check: Any = (await querying.call("GET", "/health/ready")).json["checks"]["prometheus"]
    assert (check["status"], check["hard"]) == ("up", False)
