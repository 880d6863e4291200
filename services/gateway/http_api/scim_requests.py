"""What identity providers ask in SCIM 2.0 (RFC 7644), as they write it, and what of that means something here."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.gateway import errors

MOST_OPERATIONS = 100
#: Of a page, and of one that does not say how many.
MOST_RESOURCES = 100
_MOST_FILTER_CHARACTERS = 1000
_FILTER = re.compile(r'\s*(userName|externalId)\s+eq\s+("(?:[^"\\]|\\.)*")\s*', re.IGNORECASE | re.ASCII)
#: Of startIndex and count.
MOST_NUMBER = 999_999_999
_NUMBER = re.compile(r"-?[0-9]{1,9}")
#: In small letters: whose attributes these are, and what may stand between this and a name that is written in full.
_USER_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:user"
_AFTER_SCHEMA = (":", ".")
_ACTIVE = "active"
_TRUTHS: Mapping[str, bool] = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class Search:
    """Which users are wanted; None: whatever theirs is."""

    user_name: str | None
    external_id: str | None
    #: From 1.
    start: int
    most: int


def search_of(parameters: Mapping[str, str]) -> Search:
    """Raises Malformed: invalidFilter for anything but one `eq`, invalidValue for what is no number."""
    names = _sought(parameters["filter"]) if "filter" in parameters else {}
    return Search(
        user_name=names.get("username"),
        external_id=names.get("externalid"),
        start=max(1, _number(parameters.get("startIndex", "1"))),
        most=min(MOST_RESOURCES, max(0, _number(parameters.get("count", str(MOST_RESOURCES))))),
    )


def _sought(text: str) -> Mapping[str, str]:
    match = _FILTER.fullmatch(text) if len(text) <= _MOST_FILTER_CHARACTERS else None
    try:
        value = json.loads(match[2]) if match else ""
    except ValueError:
        value = ""
    if match is None or not value or not value.isprintable():
        message = 'Only userName eq "…" and externalId eq "…" are understood, each alone.'
        raise errors.scim_fault("invalidFilter", message)
    return {match[1].lower(): value}


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise errors.scim_fault("invalidValue", "startIndex and count are whole numbers.")
    return int(text)


def wanted_activity(body: Mapping[str, Any]) -> bool | None:
    """What a PatchOp (RFC 7644, 3.5.2) makes of `active` in the end; None: nothing.

    Names are compared without regard to capitals, and a truth value may be written as a text, as Entra ID does. Other
    attributes are not kept here, and what is said of them changes nothing. Raises Malformed.
    """
    operations = _member(body, "operations")
    if not isinstance(operations, list) or not 0 < len(operations) <= MOST_OPERATIONS:
        raise errors.scim_fault("invalidSyntax", f"Operations must be a list of 1 to {MOST_OPERATIONS}.")
    said = [activity for operation in operations for activity in _said_by(operation)]
    return said[-1] if said else None


def wanted_state(body: Mapping[str, Any]) -> bool | None:
    """What a whole resource says of `active`; None: nothing. Raises Malformed."""
    said = _said_of_active(body)
    return _truth(said[-1]) if said else None


def _said_by(operation: object) -> Sequence[bool]:
    """What one operation makes of `active`, in its order."""
    if not isinstance(operation, dict):
        raise errors.scim_fault("invalidSyntax", "An operation must be an object.")
    verb, path, value = (_member(operation, name) for name in ("op", "path", "value"))
    if not isinstance(verb, str) or verb.lower() not in ("add", "replace", "remove"):
        raise errors.scim_fault("invalidSyntax", "op must be add, replace or remove.")
    said = _said_of_active(_attributes(path, value))
    if said and verb.lower() == "remove":
        raise errors.scim_fault("mutability", "active can be set, and not removed.")
    return [_truth(activity) for activity in said]


def _attributes(path: object, value: object) -> Mapping[str, Any]:
    """What an operation says of which attributes.

    A path that may mean `active` and is not understood is refused: who has left would stay, and nobody would know.
    """
    if not isinstance(path, str | None):
        raise errors.scim_fault("invalidPath", "path must be a text.")
    if path and (name := _name_of(path)):
        if name != _ACTIVE and name.endswith(_ACTIVE):
            raise errors.scim_fault("invalidPath", "active is set by the path active.")
        return {path: value}
    if not isinstance(value, dict):
        raise errors.scim_fault("noTarget", "An operation without a path has attributes as its value.")
    return value


def _said_of_active(attributes: Mapping[str, Any]) -> Sequence[object]:
    """By its name, or in an object under the name of its schema."""
    found: list[object] = []
    for written, value in attributes.items():
        name = _name_of(written)
        if name == _ACTIVE:
            found.append(value)
        elif name == _USER_SCHEMA and isinstance(value, dict):
            found.extend(said for inner, said in value.items() if _name_of(inner) == _ACTIVE)
    return found


def _name_of(attribute: str) -> str:
    """In small letters, without the schema before it."""
    name = attribute.strip().lower()
    rest = name.removeprefix(_USER_SCHEMA)
    return rest[1:] if rest != name and rest.startswith(_AFTER_SCHEMA) else name


def _truth(value: object) -> bool:
    found = _TRUTHS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise errors.scim_fault("invalidValue", "active must be true or false.")
    return found


def _member(body: Mapping[str, Any], name: str) -> Any:
    """By its name in small letters."""
    return next((value for key, value in body.items() if key.lower() == name), None)
