"""Texts that mean something to SQL, PromQL, HTTP, mails or logs are texts here, and nothing else."""

import asyncio
import json
import time
from pathlib import Path

import pytest
import pytest_asyncio

from chassis.ids import uuid7
from deploy.local.layout import OPERATIONS_PORTS
from tests.e2e.api import PASSWORD, Api, Project, sign_up
from tests.security.test_secrets import until_logged
from tests.suite_running import Suite

pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

_SQL = (
    "' OR '1'='1",
    "'; DROP TABLE users; --",
    "1) UNION SELECT password_hash FROM users --",
    "%27%20OR%201=1",
    "$1",
    "%s",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other(api_of_the_module: Api) -> Project:
    """Another tenant, with a number that is nobody else's business."""
    other = await sign_up(api_of_the_module)
    await other.define("secret_total")
    assert (await other.send({"name": "secret_total", "value": 42})).status == 202
    await other.shows("secret_total", 42)
    return other


@pytest.mark.parametrize("text", _SQL)
async def test_sql_is_text_wherever_it_stands(shared_project: Project, text: str) -> None:
    api, base = shared_project.api, f"/api/v1/projects/{shared_project.id}"
    named = await api.expect(200, "PATCH", base, {"name": text}, credential=shared_project.token)
    key = await shared_project.create_key("secret", scopes=["ingest:write"])
    renamed = await api.expect(
        200, "PATCH", f"{base}/keys/{key['id']}", {"name": text}, credential=shared_project.token
    )
    assert (named["name"], renamed["name"]) == (text, text)
    for path, params, status in (
        (f"{base}/metrics/{text}", {}, 404),
        (f"/api/v1/projects/{text}", {}, 404),
        (f"{base}/metrics", {"pageToken": text}, 422),
        (f"{base}/ledger", {"metric": text}, 200),
        (f"/api/v1/tenants/{shared_project.tenant_id}/audit", {"after": text}, 422),
    ):
        answer = await api.call("GET", path, credential=shared_project.token, params=params)
        assert answer.status == status, f"{path} {params}: {answer.text}"
    for body in ({"email": text, "password": PASSWORD}, {"email": "a@example.com", "password": text * 2}):
        answer = await api.call("POST", "/api/v1/auth/signin", body)
        assert (answer.status, answer.code) == (401, "INVALID_CREDENTIALS"), answer.text


@pytest.mark.parametrize(
    "expression",
    [
        'secret_total{project_id="%s"}',
        'secret_total{project_id=~".+"}',
        'secret_total{project_id="x" or project_id="%s"}',
        'secret_total"} or secret_total{project_id="%s',
        "secret_total or secret_total",
        '{__name__="secret_total", project_id!=""}',
        'label_replace(secret_total, "project_id", "%s", "", "")',
        "secret_total # }",
        'sum without (project_id) (secret_total{tenant_id!~""})',
        "max_over_time(secret_total[1h:1s] @ end())",
        '{"secret_total", "project_id"="%s"}',
        "count_values('project_id', secret_total)",
        "absent(nothing) * on () group_left () secret_total",
    ],
)
async def test_no_expression_reaches_another_tenant(shared_project: Project, other: Project, expression: str) -> None:
    now = time.time()
    times = {"start": f"{now - 60:.0f}", "end": f"{now + 60:.0f}"}
    stepwise = {**times, "step": "15"}
    theirs = await other.api.call(
        "GET",
        "/prometheus/api/v1/query_range",
        credential=other.secret_key,
        params={"query": "secret_total", **stepwise},
    )
    assert '"42"' in theirs.text, "at these times there is something to be found"
    for path, name, asked in (
        ("query", "query", {"time": f"{now + 1:.0f}"}),
        ("query_range", "query", stepwise),
        ("series", "match[]", times),
        ("query_exemplars", "query", times),
        ("labels", "match[]", times),
    ):
        answer = await shared_project.api.call(
            "GET",
            f"/prometheus/api/v1/{path}",
            credential=shared_project.secret_key,
            params={name: expression.replace("%s", other.id), **asked},
        )
        assert answer.status in (200, 400), answer.text
        found = answer.text if answer.status == 400 else json.dumps(answer.json["data"])
        assert '"42"' not in found, f"{path} {expression}: {found}"
        assert other.tenant_id not in found


async def _raw(api: Api, request: bytes) -> bytes:
    host, _, port = api.base_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 15)
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("request_line", "header"),
    [
        (b"GET /nowhere%0d%0aX-Made-Up:%20yes HTTP/1.1", b"A: b"),
        (b"GET /nowhere HTTP/1.1", b"X-Correlation-Id: a%0d%0aX-Made-Up: yes"),
        (b"GET /nowhere HTTP/1.1", b"X-Correlation-Id: a\rX-Made-Up: yes"),
        (b"OPTIONS /api/v1/projects HTTP/1.1", b"Origin: https://a\x0bX-Made-Up: yes"),
        (b"GET /sdk/v1/pk_%0d%0aX-Made-Up:yes.js HTTP/1.1", b"A: b"),
    ],
)
async def test_no_line_break_makes_a_header(api_of_the_module: Api, request_line: bytes, header: bytes) -> None:
    answer = await _raw(
        api_of_the_module, request_line + b"\r\nHost: x\r\nConnection: close\r\n" + header + b"\r\n\r\n"
    )
    head = answer.partition(b"\r\n\r\n")[0]
    assert head.split(b" ")[1] in (b"400", b"401", b"403", b"404", b"405")
    assert b"\r\nX-Made-Up" not in head


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding : chunked",
        b"Content-Length: +5",
    ],
)
async def test_a_body_of_two_lengths_smuggles_nothing(api_of_the_module: Api, framing: bytes) -> None:
    smuggled = b"0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await _raw(
        api_of_the_module,
        b"POST /api/v1/metrics HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + smuggled,
    )
    assert answer.split(b" ")[1] == b"400", answer[:200]
    assert answer.count(b"HTTP/1.") == 1


async def test_no_text_makes_a_line_of_a_log(suite: Suite, api_of_the_module: Api, shared_project: Project) -> None:
    """What is logged of requests is one JSON object a line, whatever they hold."""
    mark = f"forged{uuid7().hex}"
    line = f'a\r\n{{"level": "critical", "event": "{mark}"}}\r\n'
    await api_of_the_module.call("POST", "/api/v1/auth/signin", {"email": f"{line}@example.com", "password": line})
    await api_of_the_module.call("GET", f"/{line}", headers={"User-Agent": mark, "X-Forwarded-For": mark})
    await shared_project.send({"name": line, "value": 1, "labels": {line: line}})
    await api_of_the_module.call("PATCH", f"/api/v1/projects/{line}", {"name": line}, credential=shared_project.token)
    last = await api_of_the_module.call(
        "GET", "/prometheus/api/v1/query", credential=shared_project.secret_key, params={"query": line}
    )
    await until_logged(suite, last)
    faults = [f"{log.name}: {text}" for log in _service_logs(suite) for text in _not_ours(log, mark)]
    assert not faults, "\n".join(faults)


def _service_logs(suite: Suite) -> list[Path]:
    return [suite.data / "logs" / f"{name}.log" for name in OPERATIONS_PORTS]


def _not_ours(log: Path, mark: str) -> list[str]:
    """Whole lines with the mark that are no JSON object, or whose event it is."""
    found = []
    for text in log.read_text(errors="replace").rpartition("\n")[0].splitlines():
        if mark in text:
            try:
                forged = json.loads(text).get("event") == mark
            except ValueError:
                forged = True
            found += [text] if forged else []
    return found
