"""Every route that names anything, called with another tenant's ids; made of the OpenAPI document, so of new ones too.

The answer must be the one to ids that never were, word for word, and nothing may have changed.
"""

import os
import re
from collections.abc import Iterator, Mapping

import pytest

from chassis.ids import uuid7
from tests.e2e.api import Answer, Api
from tests.security.access import RULES
from tests.security.cast import Cast
from tests.security.made_requests import Operation
from tests.security.test_access import said
from tests.waiting import eventually

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

_REFUSED = {"NOT_FOUND", "FORBIDDEN", "INSUFFICIENT_SCOPE", "UNAUTHENTICATED"}
#: Everybody in `make security`, else those whose answers differ most.
_ALL = "SECURITY_EXAMPLES" in os.environ
_FEW = {"nobody", "viewer", "owner", "operator", "publishable", "config:write"}
_OF_THE_MOMENT = re.compile(r'"(?:timestamp|correlationId)":"[^"]*"')
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Beside what the tenant has these show how far the platform is: heads are signed, series delivered.
_OF_THE_PLATFORM = ("readTheAuditLog", "showTheLedger")
#: Who reads what a tenant's members do not, or everybody does about themselves.
_NOT_MEMBERS = ("operator", "nobody", "anybody", "provider")
_LAST_USE = re.compile(r'"lastUsedAt":("[^"]*"|null)')


def _swaps(operation: Operation) -> Iterator[list[str]]:
    """Which of the ids that an operation takes are another's: all of them, and each by itself."""
    yield operation.ids
    if len(operation.ids) > 1:
        yield from ([name] for name in operation.ids)


def _comparable(answer: Answer) -> tuple[int, str, str]:
    """Without what every answer has of its own; a message may repeat the id that was asked for."""
    text = _UUID.sub("an id", _OF_THE_MOMENT.sub("", answer.text))
    return answer.status, answer.headers.get("Content-Type", ""), text


async def _seen_by_its_owner(cast: Cast, described: Mapping[str, Operation]) -> dict[str, str]:
    """Everything that can be read of the other tenant; of the person's own account only that it is there."""
    seen = {}
    for name, rule in RULES.items():
        operation = described[name]
        if operation.method == "GET" and operation.ids and rule.people not in _NOT_MEMBERS:
            request = operation.made(cast.ids_elsewhere)
            answer = await request.sent(cast.elsewhere.api, cast.elsewhere.token)
            assert answer.status == 200, f"{name}: {answer.text}"
            seen[name] = _LAST_USE.sub("", answer.text)
            if name in _OF_THE_PLATFORM:
                seen[name] = str(answer.json["items"])
    return seen


async def _told_of_its_metric(cast: Cast) -> bool:
    path = f"/api/v1/tenants/{cast.elsewhere.tenant_id}/audit"
    return "first_total" in (await cast.elsewhere.api.call("GET", path, credential=cast.elsewhere.token)).text


async def _faults(api: Api, operation: Operation, cast: Cast, caller: str) -> list[str]:
    faults = []
    never = {name: str(uuid7()) for name in cast.ids_elsewhere}
    for swapped in _swaps(operation):
        answers = [
            await operation.made({**cast.ids, **{name: source[name] for name in swapped}}).sent(
                api, cast.credentials[caller]
            )
            for source in (cast.ids_elsewhere, never)
        ]
        theirs, absent = answers
        if said(theirs) not in _REFUSED:
            faults.append(f"{caller} with another's {swapped}: {theirs.status} {theirs.text[:300]}")
        if _comparable(theirs) != _comparable(absent):
            faults.append(f"{caller} can tell another's {swapped} from none: {theirs.text} {absent.text}")
    return faults


async def test_another_tenants_ids_are_answered_like_ids_that_never_were(
    cast: Cast, api_of_the_module: Api, described: dict[str, Operation]
) -> None:
    unknown = {name for operation in described.values() for name in operation.ids} - set(cast.ids)
    assert not unknown, f"tests/security/cast.py makes nothing that has a {unknown}"
    await eventually(lambda: _told_of_its_metric(cast), what="config has told the audit log what it did")
    before = await _seen_by_its_owner(cast, described)
    faults = []
    for operation in (one for one in described.values() if one.ids and not one.is_open):
        callers = {name for name in cast.credentials if _ALL or name in _FEW} - {"stranger"}
        rule = RULES.get(operation.name)
        if rule and rule.people == "operator":
            callers -= {"operator"}  # whose business every tenant is
        for caller in sorted(callers):
            found = await _faults(api_of_the_module, operation, cast, caller)
            faults += [f"{operation.method} {operation.template}: {fault}" for fault in found]
    assert not faults, "\n".join(faults)
    after = await _seen_by_its_owner(cast, described)
    changed = [f"{name}: {text}, now {after[name]}" for name, text in before.items() if after[name] != text]
    assert not changed, "\n".join(changed)
