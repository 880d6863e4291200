"""Filters of directories, filled with what somebody types."""

import pytest
from sansldap import FilterAnd, FilterEquality, FilterExtensibleMatch, FilterPresent

from services.auth.ldap_filters import DN, LOGIN, filled, filter_fault

AD = "(&(objectClass=*)(memberOf:1.2.840.113556.1.4.1941:={login}))"


@pytest.mark.parametrize("login", ["eve", "*", "eve)(uid=*", "\\2a", "\x00", "{login}", "{dn}", "ä" * 100])
def test_what_is_filled_in_is_a_value(login: str) -> None:
    found = filled(AD, {LOGIN: login})
    assert found == FilterAnd(
        [
            FilterPresent("objectClass"),
            FilterExtensibleMatch("1.2.840.113556.1.4.1941", "memberOf", login.encode(), False),
        ]
    )
    assert filled("(uid={login})", {LOGIN: login}) == FilterEquality("uid", login.encode())


@pytest.mark.parametrize("template", [AD, "(uid={login})", "(!(cn={login}*))", "(|(a~={login})(b<={login}))"])
def test_a_filter_with_a_place_is_usable(template: str) -> None:
    assert filter_fault(template, LOGIN) is None


@pytest.mark.parametrize(
    "template", ["", "(", "(uid=eve)", "(uid={dn})", "({login}=x)", "(cn=\\zz{login})", "(a={login}\n)"]
)
def test_a_filter_without_its_place_is_not(template: str) -> None:
    assert filter_fault(template, LOGIN) == (
        "must be an LDAP filter (RFC 4515) of at most 500 characters with {login} as a value"
    )
    assert "{dn} or {login}" in str(filter_fault("(member=eve)", DN, LOGIN))
