"""Search filters of LDAP directories (RFC 4515) with places for what somebody types.

A filter is parsed first and filled afterwards: what is filled in is a value, whatever characters it has, and never
becomes a part of the filter's grammar.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from sansldap import (
    FilterAnd,
    FilterApproxMatch,
    FilterEquality,
    FilterExtensibleMatch,
    FilterGreaterOrEqual,
    FilterLessOrEqual,
    FilterNot,
    FilterOr,
    FilterSubstrings,
    LDAPFilter,
)

#: The login that somebody types, and the name of their entry.
LOGIN, DN = "login", "dn"

_MOST_CHARACTERS = 500
_PLACE = re.compile(rb"\{(login|dn)\}")
_COMPARED = FilterEquality | FilterApproxMatch | FilterGreaterOrEqual | FilterLessOrEqual | FilterExtensibleMatch


def filled(template: str, values: Mapping[str, str]) -> LDAPFilter:
    """The filter with a value in each place; `template` has no fault."""
    return _filled(LDAPFilter.from_string(template), values)


def filter_fault(template: str, *places: str) -> str | None:
    """What is wrong with a filter that has these places, at least one of them."""
    wanted = " or ".join(f"{{{place}}}" for place in places)
    fault = f"must be an LDAP filter (RFC 4515) of at most {_MOST_CHARACTERS} characters with {wanted} as a value"
    if len(template) > _MOST_CHARACTERS or not template.isprintable():
        return fault
    try:
        one, other = (filled(template, dict.fromkeys((LOGIN, DN), value)) for value in "ab")
        mentioned = {place.decode() for place in _PLACE.findall(template.encode())}
    except (ValueError, IndexError, RecursionError):
        return fault
    return None if one != other and mentioned <= set(places) else fault


def _filled(found: LDAPFilter, values: Mapping[str, str]) -> LDAPFilter:
    if isinstance(found, FilterAnd | FilterOr):
        return replace(found, filters=[_filled(one, values) for one in found.filters])
    if isinstance(found, FilterNot):
        return replace(found, filter=_filled(found.filter, values))
    if isinstance(found, _COMPARED):
        return replace(found, value=_value(found.value, values))
    if isinstance(found, FilterSubstrings):
        return replace(
            found,
            initial=None if found.initial is None else _value(found.initial, values),
            any=[_value(one, values) for one in found.any],
            final=None if found.final is None else _value(found.final, values),
        )
    return found


def _value(template: bytes, values: Mapping[str, str]) -> bytes:
    return _PLACE.sub(lambda place: values[place[1].decode()].encode(), template)
