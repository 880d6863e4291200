"""What a valid API key looks like."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis import api_keys
from chassis.errors import Conflict, Invalid
from services.auth.domain import Project, ProjectId, TenantId
from services.auth.keys import KeyChange, KeyKind, KeyRequest, changed_key, new_key, normal_origin, rotated

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROJECT = Project(id=ProjectId("p"), tenant_id=TenantId("t"), name="P", created_at=NOW)
SECRET = KeyRequest(name="k", kind=KeyKind.SECRET, scopes=["query:read"], allowed_origins=[], expires_at=None)
PUBLISHABLE = KeyRequest(
    name="k", kind=KeyKind.PUBLISHABLE, scopes=[], allowed_origins=["https://a.example"], expires_at=None
)


@pytest.mark.parametrize(
    ("origin", "normal"),
    [
        ("https://shop.example.com", "https://shop.example.com"),
        ("HTTPS://Shop.Example.COM", "https://shop.example.com"),
        ("https://shop.example.com:443", "https://shop.example.com"),
        ("http://shop.example.com:80", "http://shop.example.com"),
        ("http://shop.example.com:443", "http://shop.example.com:443"),
        ("http://localhost:03000", "http://localhost:3000"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("*", "*"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(origin: str, normal: str) -> None:
    assert normal_origin(origin) == normal


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "shop.example.com",
        "https://",
        "https://shop.example.com/",
        "https://shop.example.com/path",
        "https://shop.example.com?x",
        "https://user@shop.example.com",
        "https://*.example.com",
        "https://shop.example.com:0",
        "https://shop.example.com:65536",
        "https://shop.example.com:",
        "https://shop.example.com\n",
        " https://shop.example.com",
        "https://exämple.com",
        "https://-.example.com",
        "//shop.example.com",
    ],
)
def test_what_is_no_bare_origin_is_refused(origin: str) -> None:
    assert normal_origin(origin) is None


@given(st.text())
def test_a_normal_origin_is_normal(origin: str) -> None:
    normal = normal_origin(origin)

    assert normal is None or normal_origin(normal) == normal


@pytest.mark.parametrize("request_", [SECRET, PUBLISHABLE])
def test_a_new_key_has_a_text_of_its_kind_and_shows_its_beginning(request_: KeyRequest) -> None:
    key, text = new_key(request_, PROJECT, NOW)

    assert api_keys.kind_of(text) == key.kind == request_.kind
    assert (key.prefix, len(key.prefix)) == (text[:11], 11)
    assert (key.tenant_id, key.project_id, key.created_at) == (PROJECT.tenant_id, PROJECT.id, NOW)


def test_no_two_keys_are_alike() -> None:
    assert len({new_key(SECRET, PROJECT, NOW)[1] for _ in range(200)}) == 200


@pytest.mark.parametrize(
    ("request_", "field", "says"),
    [
        (replace(SECRET, kind=None), "kind", "must be publishable or secret"),
        (replace(SECRET, name=" "), "name", "printable characters"),
        (replace(SECRET, scopes=["members:write"]), "scopes", "must be among audit:read, config:read"),
        (replace(SECRET, allowed_origins=["*"]), "allowedOrigins", "belong to publishable keys"),
        (replace(SECRET, expires_at=NOW), "expiresAt", "must be in the future"),
        (replace(PUBLISHABLE, scopes=["ingest:write", "query:read"]), "scopes", "can only have ingest:write"),
        (replace(PUBLISHABLE, allowed_origins=[]), "allowedOrigins", "are required"),
        (replace(PUBLISHABLE, allowed_origins=["*", "https://a.example"]), "allowedOrigins", "stands alone"),
        (replace(PUBLISHABLE, allowed_origins=["https://a.example/"]), "allowedOrigins", "a bare origin"),
        (replace(PUBLISHABLE, allowed_origins=["https://a.example"] * 101), "allowedOrigins", "100 at most"),
        (replace(PUBLISHABLE, allowed_origins=["https://" + "a" * 293]), "allowedOrigins", "300 characters at most"),
    ],
)
def test_a_key_that_cannot_be_is_refused_with_the_reason(request_: KeyRequest, field: str, says: str) -> None:
    with pytest.raises(Invalid) as refused:
        new_key(request_, PROJECT, NOW)

    assert refused.value.details is not None
    assert list(refused.value.details["fields"]) == [field]
    assert says in refused.value.details["fields"][field]


def test_what_is_asked_for_is_what_the_key_has() -> None:
    expires_at = NOW + timedelta(days=1)
    wanted = replace(
        PUBLISHABLE, allowed_origins=["http://b", "https://A.example:443", "http://b"], expires_at=expires_at
    )

    key, _ = new_key(wanted, PROJECT, NOW)

    assert key.allowed_origins == ("http://b", "https://a.example")
    assert key.expires_at == expires_at
    assert key.scopes == ("ingest:write",)


def test_what_is_not_named_in_a_change_stays() -> None:
    key, _ = new_key(replace(PUBLISHABLE, expires_at=NOW + timedelta(days=1)), PROJECT, NOW)

    assert changed_key(key, KeyChange(), NOW) == key
    assert changed_key(key, KeyChange(name=" site "), NOW) == replace(key, name="site")
    assert changed_key(key, KeyChange(never_expires=True), NOW) == replace(key, expires_at=None)
    later = NOW + timedelta(days=2)
    wider = KeyChange(allowed_origins=["HTTPS://B.example:443"], expires_at=later)
    assert changed_key(key, wider, NOW) == replace(key, allowed_origins=("https://b.example",), expires_at=later)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (KeyChange(name=" "), "name"),
        (KeyChange(allowed_origins=["https://shop.example.com/path"]), "allowedOrigins"),
        (KeyChange(expires_at=NOW), "expiresAt"),
    ],
)
def test_a_change_is_held_to_the_rules_of_new_keys(change: KeyChange, field: str) -> None:
    key, _ = new_key(PUBLISHABLE, PROJECT, NOW)

    with pytest.raises(Invalid) as refused:
        changed_key(key, change, NOW)

    assert list((refused.value.details or {})["fields"]) == [field]


@pytest.mark.parametrize("dead", [{"revoked_at": NOW}, {"expires_at": NOW}])
def test_a_dead_key_is_renamed_and_neither_rises_nor_is_rotated(dead: dict[str, datetime]) -> None:
    key = replace(new_key(SECRET, PROJECT, NOW)[0], **dead)  # type: ignore[arg-type]

    assert changed_key(key, KeyChange(name="old"), NOW).name == "old"
    with pytest.raises(Conflict):
        changed_key(key, KeyChange(never_expires=True), NOW)
    with pytest.raises(Conflict):
        rotated(key, 60, NOW)


@pytest.mark.parametrize(
    ("expires_in", "grace_seconds", "ends_in"), [(None, 60, 60), (30, 60, 30), (90, 60, 60), (None, 0, 0)]
)
def test_a_rotated_key_ends_after_the_grace_and_never_later_than_it_would(
    expires_in: int | None, grace_seconds: int, ends_in: int
) -> None:
    expires_at = NOW + timedelta(seconds=expires_in) if expires_in else None
    key, text = new_key(replace(SECRET, expires_at=expires_at), PROJECT, NOW)

    ending, successor, new_text = rotated(key, grace_seconds, NOW)

    end = NOW + timedelta(seconds=ends_in)
    assert ending == replace(key, expires_at=end, in_grace=True, expires_before_grace=expires_at)
    assert successor == replace(key, id=successor.id, prefix=new_text[:11])
    assert len({text, new_text, key.id, successor.id}) == 4


@pytest.mark.parametrize("expires_at", [None, NOW + timedelta(days=365)])
def test_a_key_that_is_rotated_again_ends_no_later_and_its_successor_when_the_key_would_have(
    expires_at: datetime | None,
) -> None:
    key, _ = new_key(replace(SECRET, expires_at=expires_at), PROJECT, NOW)
    once, first, _ = rotated(key, 60, NOW)

    twice, second, _ = rotated(changed_key(once, KeyChange(name="shop"), NOW), 3600, NOW)

    assert twice == replace(once, name="shop")
    assert second == replace(first, id=second.id, prefix=second.prefix, name="shop")
    assert second.expires_at == expires_at


@pytest.mark.parametrize(
    ("change", "end"),
    [
        (KeyChange(expires_at=NOW + timedelta(seconds=60)), NOW + timedelta(seconds=60)),
        (KeyChange(expires_at=NOW + timedelta(days=2)), NOW + timedelta(days=2)),
        (KeyChange(never_expires=True), None),
    ],
)
def test_an_end_that_a_rotated_key_is_given_is_its_own(change: KeyChange, end: datetime | None) -> None:
    key, _ = new_key(replace(SECRET, expires_at=NOW + timedelta(days=365)), PROJECT, NOW)
    ending, _, _ = rotated(key, 60, NOW)

    changed = changed_key(ending, change, NOW)

    assert changed == replace(key, expires_at=end)
    assert rotated(changed, 0, NOW)[1].expires_at == end


@pytest.mark.parametrize("grace_seconds", [-1, 30 * 86_400 + 1])
def test_a_grace_has_bounds(grace_seconds: int) -> None:
    with pytest.raises(Invalid):
        rotated(new_key(SECRET, PROJECT, NOW)[0], grace_seconds, NOW)
