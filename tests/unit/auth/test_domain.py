"""Roles, refresh tokens, e-mail addresses and names."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Forbidden, Invalid
from chassis.ids import uuid7
from services.auth.domain import (
    Limits,
    Membership,
    PageRequest,
    Presented,
    RefreshToken,
    Role,
    Session,
    SessionId,
    Tenant,
    TenantId,
    UserId,
    best_plan,
    check_grant,
    email_fault,
    name_fault,
    presented,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SESSION = Session(id=SessionId("s"), user_id=UserId("u"), revoked_at=None)
TOKEN = RefreshToken(
    token_hash=b"h",
    session_id=SESSION.id,
    user_id=SESSION.user_id,
    expires_at=NOW + timedelta(days=7),
    spent_at=None,
)
ROLES = st.sampled_from(Role)


@given(ROLES, ROLES)
def test_a_higher_role_may_all_that_a_lower_one_may(one: Role, other: Role) -> None:
    assert (one <= other) == (one.scopes <= other.scopes)


def test_roles_are_spoken_of_by_their_words() -> None:
    assert [role.word for role in Role] == ["viewer", "editor", "admin", "owner"]
    assert [Role.of(role.word) for role in Role] == list(Role)


@given(ROLES, st.none() | ROLES, st.none() | ROLES)
def test_nobody_grants_above_their_own_role_or_touches_a_member_above_them(
    actor: Role, current: Role | None, wanted: Role | None
) -> None:
    allowed = actor >= Role.ADMIN and all(role is None or role <= actor for role in (current, wanted))

    if allowed:
        check_grant(actor, current=current, wanted=wanted)
    else:
        with pytest.raises(Forbidden):
            check_grant(actor, current=current, wanted=wanted)


@pytest.mark.parametrize(
    ("token", "session", "expected"),
    [
        (TOKEN, SESSION, Presented.ROTATE),
        (replace(TOKEN, expires_at=NOW), SESSION, Presented.REFUSE),
        (TOKEN, replace(SESSION, revoked_at=NOW), Presented.REFUSE),
        (replace(TOKEN, spent_at=NOW), replace(SESSION, revoked_at=NOW), Presented.REFUSE),
        (replace(TOKEN, spent_at=NOW), SESSION, Presented.REPEAT),
        (replace(TOKEN, spent_at=NOW - timedelta(seconds=10)), SESSION, Presented.REPEAT),
        (replace(TOKEN, spent_at=NOW - timedelta(seconds=10, microseconds=1)), SESSION, Presented.REUSED),
        (replace(TOKEN, spent_at=NOW + timedelta(seconds=2)), SESSION, Presented.REPEAT),
    ],
    ids=["fresh", "expired", "revoked", "spent and revoked", "just spent", "in grace", "past grace", "clock behind"],
)
def test_a_refresh_token_is_judged(token: RefreshToken, session: Session, expected: Presented) -> None:
    assert presented(token, session, NOW) is expected


@pytest.mark.parametrize(
    "email",
    ["a@b.co", "first.last+tag@sub.example.com", "üser@exämple.de", "o'hara@example.museum", "x" * 64 + "@b.co"],
)
def test_an_email_address_that_could_work_is_taken(email: str) -> None:
    assert email_fault(email) is None


@pytest.mark.parametrize(
    "email",
    [
        "",
        "nobody",
        "@example.com",
        "a@b",
        "a@.com",
        "a@b.",
        "a@b..com",
        "a b@example.com",
        "a@b@example.com",
        "a@[.example",
        "a,b@example.com",
        '"a b"@example.com',
        "=?utf-8?q?a=0D=0ABcc=3Ab?=@example.com",
        "a\0@example.com",
        "a@example.com\n",
        "x" * 65 + "@example.com",
        "a@" + "x" * 250 + ".com",
    ],
)
def test_an_email_address_that_never_works_is_refused(email: str) -> None:
    assert email_fault(email) == "must be an e-mail address of at most 254 characters"


@given(st.text())
def test_a_name_is_printable_and_of_at_most_100_characters(name: str) -> None:
    good = bool(name.strip()) and len(name) <= 100 and name.isprintable()

    assert (name_fault(name) is None) == good


@given(st.integers(0, 12), st.integers(1, 5))
def test_pages_hold_every_item_once_in_order(count: int, size: int) -> None:
    items = sorted(str(uuid7()) for _ in range(count))
    seen: list[str] = []
    token = ""
    while True:
        request = PageRequest.parse(size, token)
        rest = [item for item in items if item > request.after]
        page = request.cut(rest[: size + 1], lambda item: item)
        seen += page.items
        token = page.next_token
        if not token:
            break

    assert seen == items


@given(st.text(min_size=1))
def test_a_page_token_that_no_list_gave_is_refused(token: str) -> None:
    with pytest.raises(Invalid):
        PageRequest.parse(10, token)


@pytest.mark.parametrize(
    ("plans", "best"),
    [([], "basic"), (["free"], "free"), (["free", "professional", "basic"], "professional")],
)
def test_a_persons_calls_are_limited_by_the_best_of_their_plans(plans: list[str], best: str) -> None:
    tenant = Tenant(id=TenantId("t"), name="T")

    memberships = [
        Membership(tenant=tenant, role=Role.VIEWER, plan=plan, limits=Limits(), suspended=False, consented=True)
        for plan in plans
    ]
    assert best_plan(memberships, "basic") == best
