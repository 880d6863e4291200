"""Every route for every role and every key: who may call it is let in, and everybody else is told why not."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from chassis.ids import uuid7
from tests.e2e.api import Answer, Api
from tests.security.access import RULES, Rule
from tests.security.cast import ROLES, Cast
from tests.security.made_requests import Operation

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

_PAGE = Path(__file__).parents[2] / "docs/access.md"

#: From Prometheus' types of errors to the codes of everywhere else.
_PROMETHEUS = {"unauthorized": "UNAUTHENTICATED", "forbidden": "INSUFFICIENT_SCOPE", "not_found": "NOT_FOUND"}
LET_IN = "let in"


def _refusal(rule: Rule, caller: str, cast: Cast) -> str:
    """The code that a caller is refused with, or LET_IN."""
    if caller == "nobody":
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
    words: Mapping[str, str] = {"anybody": "everybody, about their own account", "nobody": "—"}
    people = words.get(rule.people, rule.people)
    return f"| `{operation.method} {operation.template}` | {people} | {f'`{rule.scope}`' if rule.scope else '—'} |"


def _body(operation: Operation) -> dict[str, str]:
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
