"""Every route for every role and every key: who may call it is let in, and everybody else is told why not."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from chassis.ids import uuid7
from tests.e2e.api import Answer, Api
from tests.security.access import RULES, Rule
from tests.security.cast import ROLES, Cast
from tests.security.made_requests import Operation
from tests.waiting import eventually

pytestmark = [pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

_PAGE = Path(__file__).parents[2] / "docs/access.md"

#: From Prometheus' types of errors to the codes of everywhere else.
_PROMETHEUS = {"unauthorized": "UNAUTHENTICATED", "forbidden": "INSUFFICIENT_SCOPE", "not_found": "NOT_FOUND"}
LET_IN = "let in"

#: What is not as it is with a new one.
_DIFFERENT: Mapping[str, Mapping[str, object]] = {
    "changeAMembersRole": {"role": "editor"},
    "changeAProjectsSettings": {"autoDefinition": True},
    "setATenantsLimits": {"writesPerHour": 9_000},
    "setATenantsPlanOrSuspendIt": {"plan": "professional"},
}
#: What is no GET and changes nothing where somebody has one session, and an identity provider no token; and scopes of
#: what sends or queries numbers.
_NO_CHANGES = (
    "askForAVerificationOfMyAddress",
    "endMyOtherSessions",
    "generateAClient",
    "revokeAProvisioningToken",
)
_NO_CHANGES_WITH = ("ingest:write", "query:read")


def _refusal(rule: Rule, caller: str, cast: Cast) -> str:
    """The code that a caller is refused with, or LET_IN."""
    if rule.people == "provider":
        return LET_IN if caller == "provider" else "UNAUTHENTICATED"
    if caller in ("nobody", "provider"):
        return "UNAUTHENTICATED"
    if caller in cast.keys:
        scope = "ingest:write" if caller == "publishable" else caller
        return LET_IN if rule.scope == scope else "INSUFFICIENT_SCOPE"
    if rule.people == "nobody":
        return "UNAUTHENTICATED"
    if rule.people == "operator":
        return LET_IN if caller == "operator" else "FORBIDDEN"
    if rule.people == "anybody":
        return LET_IN
    if caller not in ROLES:
        return "NOT_FOUND"
    return LET_IN if ROLES.index(caller) >= ROLES.index(rule.people) else "FORBIDDEN"


def said(answer: Answer) -> str:
    """The code of an answer in any of the shapes that errors have; "" where it is none."""
    if answer.status < 400:
        return ""
    body = answer.json
    if "errorType" in body:
        return _PROMETHEUS.get(body["errorType"], str(body["errorType"]))
    if "error" in body:
        return str(body["error"]["code"])
    if "detail" in body:
        return str(body["detail"]).partition(":")[0]
    return str(body["message"]).partition(":")[0]


def _as_expected(answer: Answer, rule: Rule, expected: str) -> bool:
    code = said(answer)
    if expected == LET_IN:
        return code in ("", *rule.answers) and answer.status < 500
    return code == expected


def _callers(rule: Rule, cast: Cast) -> Mapping[str, str]:
    """Of the people one where nobody's role matters: each of these calls may compare a password."""
    spared = {*ROLES, "operator"} - {"viewer"} if rule.people == "anybody" else set()
    return {caller: credential for caller, credential in cast.credentials.items() if caller not in spared}


async def _ids(operation: Operation, cast: Cast, caller: str, *, fresh: bool) -> dict[str, str]:
    """About the tenant's things; where it matters about one that nothing else needs."""
    ids = dict(cast.ids)
    last = operation.ids_in_path[-1:] if fresh and operation.method != "GET" else []
    for parameter in last:
        if parameter in ("tenantId", "projectId") and operation.method != "DELETE":
            continue
        ids[parameter] = await cast.fresh(parameter, caller)
    return ids


def _row(operation: Operation, rule: Rule) -> str:
    words: Mapping[str, str] = {
        "anybody": "everybody, about their own account",
        "nobody": "—",
        "provider": "an identity provider, by its provisioning token",
    }
    people = words.get(rule.people, rule.people)
    return f"| `{operation.method} {operation.template}` | {people} | {f'`{rule.scope}`' if rule.scope else '—'} |"


def _body(operation: Operation) -> dict[str, object]:
    return {"name": f"m{uuid7().hex}_total"} if operation.name == "defineAMetric" else {}


async def test_every_route_that_takes_a_credential_has_a_rule(described: dict[str, Operation]) -> None:
    guarded = {name for name, operation in described.items() if not operation.is_open}
    assert guarded == set(RULES), "a new route needs a rule in tests/security/access.py"


async def test_the_page_about_access_has_the_table(described: dict[str, Operation]) -> None:
    rows = [_row(operation, RULES[name]) for name, operation in described.items() if name in RULES]
    page = re.findall(r"^\| `.*$", _PAGE.read_text(), re.MULTILINE)
    assert page == rows, "docs/access.md should say:\n" + "\n".join(rows)


@pytest.mark.parametrize("name", RULES)
async def test_a_route_is_for_whom_the_table_names(
    cast: Cast, api_of_the_module: Api, described: dict[str, Operation], name: str
) -> None:
    operation, rule, faults = described[name], RULES[name], []
    for caller, credential in _callers(rule, cast).items():
        expected = _refusal(rule, caller, cast)
        ids = await _ids(operation, cast, caller, fresh=expected == LET_IN)
        answer = await operation.made(ids, _body(operation)).sent(api_of_the_module, credential)
        if not _as_expected(answer, rule, expected):
            faults.append(f"{caller}: {expected} expected, but {answer.status} {answer.text[:300]}")
    assert not faults, "\n".join([f"{operation.method} {operation.template}", *faults])


async def test_every_change_leaves_an_entry_in_the_audit_log(
    cast: Cast, api_of_the_module: Api, described: dict[str, Operation]
) -> None:
    """Of each change that the table lets somebody make, with the id of its request."""
    made: dict[str, str] = {}
    for name, rule in RULES.items():
        operation = described[name]
        if operation.method == "GET" or name in _NO_CHANGES or rule.scope in _NO_CHANGES_WITH:
            continue
        caller, ids = await _on_something_new(operation, rule, cast)
        request = operation.made(ids, {**_body(operation), **_DIFFERENT.get(name, {})})
        answer = await request.sent(api_of_the_module, cast.credentials[caller])
        assert _as_expected(answer, rule, LET_IN), f"{name}: {answer.status} {answer.text}"
        if answer.status < 400:
            made[answer.headers["X-Correlation-Id"]] = name
    assert len(made) >= 20
    for correlation_id, name in made.items():
        await eventually(partial(_is_told, cast, correlation_id), within_seconds=30, what=f"an entry of {name}")


async def _on_something_new(operation: Operation, rule: Rule, cast: Cast) -> tuple[str, dict[str, str]]:
    """Who may do it, and to what: nothing of it was done before."""
    if rule.people == "operator":
        return "operator", dict(cast.ids_elsewhere)
    if rule.people == "provider":
        return "provider", dict(cast.ids)
    ids = await _ids(operation, cast, "owner", fresh=True)
    if operation.ids_in_path[-1:] == ["projectId"]:
        ids["projectId"] = await cast.fresh("projectId", "owner")
    return "owner", ids


async def _is_told(cast: Cast, correlation_id: str) -> bool:
    """In the audit log of one of the tenants."""
    lines = {"Accept": "application/x-ndjson"}
    for project in (cast.project, cast.elsewhere):
        path = f"/api/v1/tenants/{project.tenant_id}/audit"
        answer = await project.api.call("GET", path, credential=project.token, headers=lines)
        assert answer.status == 200, answer.text
        if f'"{correlation_id}"' in answer.text:
            return True
    return False
