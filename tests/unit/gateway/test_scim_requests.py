"""What identity providers write in SCIM 2.0, each in its own way."""

from typing import Any

import pytest

from chassis.errors import Malformed
from services.gateway.http_api.scim_requests import Search, search_of, wanted_activity, wanted_state

SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"


def patch(*operations: Any) -> dict[str, Any]:
    return {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": list(operations)}


@pytest.mark.parametrize(
    ("filter_", "user_name", "external_id"),
    [
        ('userName eq "eve@example.com"', "eve@example.com", None),
        ('USERNAME  EQ\t"eve"', "eve", None),
        (' externalId eq "a \\"quoted\\" \\u00e9" ', None, 'a "quoted" é'),
    ],
)
def test_a_filter_is_one_comparison(filter_: str, user_name: str | None, external_id: str | None) -> None:
    found = search_of({"filter": filter_})
    assert (found.user_name, found.external_id, found.start, found.most) == (user_name, external_id, 1, 100)


@pytest.mark.parametrize(
    "filter_",
    [
        "",
        "userName",
        "userName eq eve",
        'userName ne "eve"',
        'u\u017ferName eq "eve"',  # a long s, which is an s to whoever ignores capitals in all of Unicode
        'userName\u2003eq "eve"',
        'userName sw "e"',
        'active eq "true"',
        'userName eq "eve" or userName eq "bob"',
        'userName eq ""',
        'userName eq "a\\u0000b"',
        'userName eq "a\\ud800b"',
        'userName eq "a\\qb"',
        'userName eq "a\nb"',
        f'userName eq "{"e" * 1000}"',
        'userName eq "' + "\\" * 900,
    ],
)
def test_any_other_filter_is_refused(filter_: str) -> None:
    with pytest.raises(Malformed) as error:
        search_of({"filter": filter_})
    assert error.value.details == {"scimType": "invalidFilter"}


def test_pages_are_bounded_as_the_specification_says() -> None:
    everything = Search(user_name=None, external_id=None, start=1, most=100)
    assert search_of({}) == everything
    assert search_of({"startIndex": "-3", "count": "100000"}) == everything
    asked = search_of({"startIndex": "7", "count": "-1"})
    assert (asked.start, asked.most) == (7, 0)
    for nonsense in ("", "x", "1.5", "1" * 10, "٣"):
        with pytest.raises(Malformed):
            search_of({"startIndex": nonsense})


@pytest.mark.parametrize(
    ("operations", "active"),
    [
        ([{"op": "replace", "value": {"active": False}}], False),  # Okta
        ([{"op": "Replace", "path": "active", "value": "False"}], False),  # Entra ID
        ([{"op": "Replace", "path": "active", "value": "True"}], True),
        ([{"op": "Add", "value": {"urn:ietf:params:scim:schemas:core:2.0:User:active": "true"}}], True),
        ([{"op": "add", "path": "urn:ietf:params:scim:schemas:core:2.0:User:Active", "value": False}], False),
        ([{"op": "replace", "path": f"{SCHEMA}.active", "value": False}], False),
        ([{"op": "replace", "path": " active\t", "value": False}], False),
        ([{"op": "replace", "path": SCHEMA, "value": {"active": False}}], False),
        ([{"op": "replace", "value": {SCHEMA: {"Active": False, "title": "none"}}}], False),
        ([{"op": "replace", "path": "  ", "value": {" active": False}}], False),
        ([{"op": "replace", "value": {SCHEMA: "active"}}], None),
        ([{"op": "replace", "path": SCHEMA, "value": None}], None),
        ([{"op": "replace", "path": "displayName", "value": "Eve"}], None),
        ([{"op": "remove", "path": "title"}, {"op": "replace", "value": {"name.givenName": "Eve"}}], None),
        ([{"op": "replace", "path": "active", "value": False}, {"op": "replace", "value": {"active": True}}], True),
        ([{"op": "replace", "path": 'emails[type eq "work"].value', "value": "eve@example.com"}], None),
    ],
)
def test_what_is_said_of_active_counts_however_it_is_written(
    operations: list[dict[str, Any]], active: bool | None
) -> None:
    assert wanted_activity(patch(*operations)) is active
    assert wanted_activity({"operations": operations}) is active


@pytest.mark.parametrize(
    ("body", "scim_type"),
    [
        ({}, "invalidSyntax"),
        (patch(), "invalidSyntax"),
        ({"Operations": {}}, "invalidSyntax"),
        (patch(*[{"op": "replace", "value": {}}] * 101), "invalidSyntax"),
        (patch("replace"), "invalidSyntax"),
        (patch({"path": "active", "value": False}), "invalidSyntax"),
        (patch({"op": "delete", "path": "active"}), "invalidSyntax"),
        (patch({"op": 1, "path": "active"}), "invalidSyntax"),
        (patch({"op": "replace", "path": ["active"], "value": False}), "invalidPath"),
        (patch({"op": "replace", "path": "user.active", "value": False}), "invalidPath"),
        (patch({"op": "replace", "path": f"{SCHEMA}/active", "value": False}), "invalidPath"),
        (patch({"op": "replace", "path": "urn:example:User:Active", "value": False}), "invalidPath"),
        (patch({"op": "replace", "value": False}), "noTarget"),
        (patch({"op": "remove"}), "noTarget"),
        (patch({"op": "remove", "path": "active"}), "mutability"),
        (patch({"op": "remove", "value": {"active": False}}), "mutability"),
        (patch({"op": "replace", "path": "active", "value": 0}), "invalidValue"),
        (patch({"op": "replace", "path": "active", "value": "no"}), "invalidValue"),
        (patch({"op": "replace", "path": "active"}), "invalidValue"),
    ],
)
def test_a_patch_that_cannot_be_meant_changes_nothing(body: dict[str, Any], scim_type: str) -> None:
    with pytest.raises(Malformed) as error:
        wanted_activity(body)
    assert error.value.details == {"scimType": scim_type}


@pytest.mark.parametrize(
    ("resource", "active"),
    [
        ({"schemas": [SCHEMA], "userName": "eve@example.com", "active": False}, False),
        ({"Active": "True"}, True),
        ({f"{SCHEMA}:active": False}, False),
        ({"userName": "eve@example.com", "inactive": True}, None),
        ({}, None),
    ],
)
def test_of_a_whole_resource_active_alone_counts(resource: dict[str, Any], active: bool | None) -> None:
    assert wanted_state(resource) is active


@pytest.mark.parametrize("said", [None, 0, "no", [False]])
def test_a_resource_whose_active_is_no_truth_is_refused(said: object) -> None:
    with pytest.raises(Malformed) as error:
        wanted_state({"active": said})
    assert error.value.details == {"scimType": "invalidValue"}
