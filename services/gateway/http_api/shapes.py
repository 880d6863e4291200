"""The structs of requests and answers, and the way from decoded JSON to one, with every member that is at fault."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from chassis.emails import MOST_EMAIL_CHARACTERS


class Asked(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What a request holds: the members of its body, or its parameters."""


class Told(msgspec.Struct, rename="camel"):
    """What an answer holds."""


T = TypeVar("T", bound=msgspec.Struct)

#: An id: a UUID in lower case.
Id = Annotated[str, msgspec.Meta(extra_json_schema={"format": "uuid"})]
#: RFC 3339, in UTC in answers.
Moment = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
#: The name of a tenant, a project or a key: printable characters.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Email = Annotated[str, msgspec.Meta(max_length=MOST_EMAIL_CHARACTERS, extra_json_schema={"format": "email"})]

#: What is wrong, by member as its author wrote it (`labels[2].name`).
Faults = dict[str, str]

#: Before the path at the end of what msgspec says; it stands between backticks.
_AT = " - at `$"
#: What is no text in an address.
_SCALAR = re.compile(r"0|-?[1-9][0-9]{0,17}|true|false")
#: What is said about one request; nobody reads more.
MOST_FAULTS = 100

#: What no database takes.
HOLDS_NUL = "may not contain the character U+0000"

#: Elements of a list that are looked at one by one where something in it is wrong.
_MOST_ELEMENTS = 100

_NOT_ON_THE_LIST = "Invalid enum value"


def shaped(decoded: Mapping[str, Any], shape: type[T]) -> tuple[T, Faults]:
    """The object as a struct. Where there are faults, a member at fault has its default, and None where it has none."""
    faults: Faults = {}
    struct = _struct(decoded, shape, "", faults)
    return struct, dict(sorted(faults.items())[:MOST_FAULTS])


def read_from_texts(parameters: Mapping[str, str], shape: type[T]) -> tuple[T, Faults]:
    """The same for parameters in an address, whose numbers are texts; those that are no members are not looked at."""
    faults: Faults = {}
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(shape):
        text = parameters.get(field.encode_name)
        if text is None and field.required:
            faults[field.encode_name] = "is required"
        elif text is not None:
            try:
                values[field.name] = _from_text(text, field.type)
            except msgspec.ValidationError as error:
                faults[field.encode_name] = _explained(_parted(error)[0], field.type)
        if field.required:
            values.setdefault(field.name, None)
    return shape(**values), faults


def _from_text(text: str, kind: Any) -> Any:
    """A text, or what the text of a whole number or truth value says. Raises msgspec.ValidationError."""
    if "\x00" in text:
        raise msgspec.ValidationError(HOLDS_NUL)
    try:
        return msgspec.convert(text, kind)
    except msgspec.ValidationError:
        if not _SCALAR.fullmatch(text):
            raise
        return msgspec.convert(msgspec.json.decode(text), kind)


def _struct(decoded: Mapping[str, Any], shape: type[T], prefix: str, faults: Faults) -> T:
    fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    faults.update(
        {f"{prefix}{name[:100]}": "is not a member of this request" for name in decoded if name not in fields}
    )
    values: dict[str, Any] = {}
    for name, field in fields.items():
        before = len(faults)
        if name in decoded:
            value = _value(decoded[name], field.type, f"{prefix}{name}", faults)
            if len(faults) == before or isinstance(value, list):
                values[field.name] = value
        elif field.required:
            faults[f"{prefix}{name}"] = "is required"
        if field.required:
            values.setdefault(field.name, None)
    return shape(**values)


def _value(decoded: Any, kind: Any, where: str, faults: Faults) -> Any:
    """One member; None where it is at fault, but a list of structs stays one: its elements keep their places."""
    try:
        return msgspec.convert(decoded, kind)
    except msgspec.ValidationError as error:
        before = len(faults)
        elements = _elements(decoded, kind, where, faults)
        if len(faults) > before:
            return elements
        what, path = _parted(error)
        faults[where + path] = _explained(what, kind)
        return None


def _elements(decoded: Any, kind: Any, where: str, faults: Faults) -> list[Any]:
    """The first elements of a list of structs; none where it is none."""
    (element,) = get_args(kind) if get_origin(kind) is list else (None,)
    if not (isinstance(decoded, list) and isinstance(element, type) and issubclass(element, msgspec.Struct)):
        return []
    return [_element(one, element, f"{where}[{index}]", faults) for index, one in enumerate(decoded[:_MOST_ELEMENTS])]


def _element(decoded: Any, shape: type[T], where: str, faults: Faults) -> T:
    if isinstance(decoded, dict):
        return _struct(decoded, shape, f"{where}.", faults)
    faults[where] = "must be an object"
    return _struct({}, shape, f"{where}.", {})


def _parted(error: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong, and the path to it. Looked for from the end alone: a wrong value stands in it as it came."""
    message = str(error)
    what, at, path = message.rpartition(_AT)
    return (what, path[:-1]) if at and message.endswith("`") else (message, "")


def _explained(fault: str, kind: Any) -> str:
    if fault.startswith(_NOT_ON_THE_LIST):
        return f"must be one of {', '.join(_literals(kind))}"
    return fault[:1].lower() + fault[1:]


def _literals(kind: Any) -> Iterator[str]:
    """The values that a type allows, where it lists them."""
    if get_origin(kind) is Literal:
        yield from get_args(kind)
    else:
        for argument in get_args(kind):
            yield from _literals(argument)
