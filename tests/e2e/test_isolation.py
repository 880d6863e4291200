"""What one tenant has, another can neither see nor change; and what was revoked stops working."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import pytest

from tests.e2e.api import PASSWORD, Answer, Api, Json, Project, sign_up
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def other(api: Api) -> Project:
    return await sign_up(api)


async def test_another_tenants_ids_are_not_found(project: Project, other: Project) -> None:
    metric = await other.define("theirs_total")
    base = f"/api/v1/projects/{other.id}"
    for method, path, body in [
        ("GET", base, None),
        ("PATCH", base, {"name": "mine now"}),
        ("DELETE", base, None),
        ("GET", f"{base}/keys", None),
        ("POST", f"{base}/keys", {"name": "x", "kind": "secret", "scopes": ["ingest:write"]}),
        ("PATCH", f"{base}/keys/{other.secret_key_id}", {"name": "x"}),
        ("DELETE", f"{base}/keys/{other.secret_key_id}", None),
        ("POST", f"{base}/keys/{other.secret_key_id}/rotate", {"graceSeconds": 0}),
        ("GET", f"/api/v1/tenants/{other.tenant_id}/audit", None),
        ("GET", f"{base}/metrics", None),
        ("POST", f"{base}/metrics", {"name": "x_total", "type": "counter", "help": "x"}),
        ("GET", f"{base}/metrics/{metric['id']}", None),
        ("DELETE", f"{base}/metrics/{metric['id']}", None),
        ("GET", f"{base}/client?language=python", None),
        ("GET", f"{base}/ledger", None),
        ("GET", f"{base}/rejections", None),
        ("GET", f"/api/v1/tenants/{other.tenant_id}/members", None),
        ("POST", f"/api/v1/tenants/{other.tenant_id}/members", {"email": project.email, "role": "owner"}),
        ("GET", f"/api/v1/tenants/{other.tenant_id}/invitations", None),
        ("POST", f"/api/v1/tenants/{other.tenant_id}/invitations", {"email": project.email, "role": "owner"}),
        # and below one's own project
        ("GET", f"/api/v1/projects/{project.id}/metrics/{metric['id']}", None),
        ("DELETE", f"/api/v1/projects/{project.id}/keys/{other.secret_key_id}", None),
    ]:
        answer = await project.api.call(method, path, body, credential=project.token)
        assert (answer.status, answer.code) == (404, "NOT_FOUND"), f"{method} {path}: {answer.text}"
    by_key = await project.api.call("GET", f"{base}/metrics", credential=project.secret_key)
    assert by_key.status in (403, 404), by_key.text
    assert (await other.send({"name": "theirs_total", "value": 1})).status == 202, "nothing of it had any effect"


async def test_queries_see_one_project_only_whatever_they_say(project: Project, other: Project) -> None:
    for owner, value in ((project, 1), (other, 2)):
        await owner.define("shared_name_total")
        assert (await owner.send({"name": "shared_name_total", "value": value})).status == 202
        await owner.shows("shared_name_total", value)
    for expression in (
        "sum(shared_name_total)",
        f'sum(shared_name_total{{project_id="{project.id}"}})',
        'sum({__name__=~"shared_name.*"})',
        "sum(max_over_time(shared_name_total[10m:1s]))",
        "max(shared_name_total) or vector(0)",
    ):
        assert await project.value(expression) == 1, expression
    for expression in (
        f'shared_name_total{{project_id="{other.id}"}}',
        f'shared_name_total{{project_id=~".*", tenant_id="{other.tenant_id}"}}',
        'up{job="prometheus"}',
    ):
        assert await project.query(expression) == [], expression
    for path in ("series", "labels", "label/project_id/values", "label/__name__/values"):
        answer = await project.api.call(
            "GET",
            f"/prometheus/api/v1/{path}",
            credential=project.secret_key,
            params={"match[]": '{__name__=~".+"}'} if path == "series" else {},
        )
        assert answer.status == 200, answer.text
        assert other.id not in answer.text
        assert other.tenant_id not in answer.text


async def test_metadata_are_of_the_callers_project(project: Project, other: Project) -> None:
    await project.define("ours_total", help="What we count.")
    await other.define("theirs_total")
    asked = [
        (project.secret_key, {}),
        (project.secret_key, {"metric": "theirs_total"}),
        (project.token, {"projectId": project.id}),
        (project.token, {"projectId": other.id}),
    ]
    path = "/prometheus/api/v1/metadata"
    answers = [await project.api.call("GET", path, credential=whose, params=params) for whose, params in asked]
    ours = {"ours_total": [{"type": "counter", "help": "What we count.", "unit": ""}]}
    assert [answer.json.get("data") for answer in answers] == [ours, {}, ours, None]
    assert answers[-1].status == 404


async def test_a_browser_key_cannot_read(project: Project) -> None:
    answer = await project.api.call(
        "GET", "/prometheus/api/v1/query", headers={"X-API-Key": project.publishable_key}, params={"query": "up"}
    )
    assert answer.status == 403
    assert answer.json["status"] == "error"


#: Whether it still works, and what revokes it.
Revocable = tuple[Callable[[], Awaitable[bool]], Callable[[], Awaitable[Answer]]]


async def a_key(project: Project, _other: Project) -> Revocable:
    await project.define("revoked_total")
    key = await project.create_key("secret", scopes=["ingest:write"])

    async def works() -> bool:
        return _let_in(await project.send({"name": "revoked_total", "value": 1}, key=key["key"]), 202, 401)

    async def revoke() -> Answer:
        path = f"/api/v1/projects/{project.id}/keys/{key['id']}"
        return await project.api.call("DELETE", path, credential=project.token)

    return works, revoke


async def a_session_that_signs_out(project: Project, _other: Project) -> Revocable:
    works, session = await _another_session(project)

    async def revoke() -> Answer:
        return await project.api.call("POST", "/api/v1/auth/signout", {"refreshToken": session["refreshToken"]})

    return works, revoke


async def a_session_that_another_one_ends(project: Project, _other: Project) -> Revocable:
    works, _ = await _another_session(project)

    async def revoke() -> Answer:
        return await project.api.call("DELETE", "/api/v1/auth/sessions", credential=project.token)

    return works, revoke


async def a_role(project: Project, other: Project) -> Revocable:
    members = f"/api/v1/tenants/{project.tenant_id}/members"
    added = {"email": other.email, "role": "viewer"}
    await project.api.expect(201, "POST", members, added, credential=project.token)
    user = (await other.api.expect(200, "GET", "/api/v1/auth/me", credential=other.token))["user"]["id"]

    async def works() -> bool:
        path = f"/api/v1/projects/{project.id}/metrics"
        return _let_in(await other.api.call("GET", path, credential=other.token), 200, 404)

    async def revoke() -> Answer:
        return await project.api.call("DELETE", f"{members}/{user}", credential=project.token)

    return works, revoke


async def _another_session(project: Project) -> tuple[Callable[[], Awaitable[bool]], Json]:
    signing_in = {"email": project.email, "password": PASSWORD}
    session = await project.api.expect(200, "POST", "/api/v1/auth/signin", signing_in)

    async def works() -> bool:
        return _let_in(await project.api.call("GET", "/api/v1/auth/me", credential=session["accessToken"]), 200, 401)

    return works, session


def _let_in(answer: Answer, welcome: int, refused: int) -> bool:
    assert answer.status in (welcome, refused), answer.text
    return answer.status == welcome


@pytest.mark.alone
@pytest.mark.parametrize("valkey", ["there", "away"])
@pytest.mark.parametrize("what", [a_key, a_session_that_signs_out, a_session_that_another_one_ends, a_role])
async def test_what_is_revoked_stops_working_within_a_second(
    suite: Suite,
    project: Project,
    other: Project,
    what: Callable[[Project, Project], Awaitable[Revocable]],
    valkey: str,
) -> None:
    works, revoke = await what(project, other)
    assert await works()
    with suite.paused("valkey") if valkey == "away" else nullcontext():
        assert await works()
        assert (await revoke()).status == 204

        async def refused() -> bool:
            return not await works()

        await eventually(refused, within_seconds=1.0, what="what was revoked is refused")


async def test_a_key_writes_on_for_a_while_when_auth_is_away_and_nothing_else_works(
    suite: Suite, project: Project
) -> None:
    await project.define("outage_total")
    assert (await project.send({"name": "outage_total", "value": 1})).status == 202

    async def people_are_refused() -> bool:
        answer = await project.api.call("GET", f"/api/v1/projects/{project.id}/metrics", credential=project.token)
        if answer.status == 200:  # from before the feed's silence was noticed
            return False
        assert (answer.status, answer.code) in {(503, "SERVICE_UNAVAILABLE"), (504, "DEADLINE_EXCEEDED")}
        return True

    with suite.paused("auth"):
        await eventually(people_are_refused, what="the gateway lets nobody in on what it has heard before")
        assert (await project.send({"name": "outage_total", "value": 1})).status == 202
    suite.wait_ready()
    await project.shows("outage_total", 2)


async def test_a_spent_refresh_token_is_answered_alike_for_a_while(project: Project) -> None:
    async def refresh(token: str) -> dict[str, str]:
        return await project.api.expect(200, "POST", "/api/v1/auth/refresh", {"refreshToken": token})

    successors = await asyncio.gather(*(refresh(project.refresh_token) for _ in range(50)))
    assert len({successor["refreshToken"] for successor in successors}) == 1
    await refresh(successors[0]["refreshToken"])
