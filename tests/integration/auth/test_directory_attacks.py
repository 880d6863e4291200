"""What must not sign anybody in through an LDAP directory, and what a directory must not do to us."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sansldap import FilterAnd, FilterEquality, FilterGreaterOrEqual, FilterOr, FilterSubstrings, LDAPResultCode
from yarl import URL

from chassis import context
from chassis.errors import Invalid, PulsegateError
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from services.auth import directories
from services.auth.ldap import Connection, NotAnswered
from services.auth.settings import Settings
from tests import client_hellos
from tests.integration.auth.client import AuthClient, running_auth
from tests.integration.auth.directories import add_directory, change_directory, of_directory, of_liar, refusal, sign_in
from tests.integration.auth.forging_issuer import ForgingIssuer
from tests.integration.auth.lying_directory import EVE, LyingDirectory, lying_directory
from tests.integration.auth.sign_ons import ADMIN, add_provider
from tests.suite_ldap import PASSWORD, Directory

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def provider_of(auth: AuthClient, liar: LyingDirectory, **changed: Any) -> pb.IdentityProvider:
    return await add_directory(auth, await auth.sign_up(), of_liar(liar, **changed))


@pytest.mark.parametrize(
    "login",
    [
        "*",
        "{login}*",
        "{login})(uid=*",
        "*)(|(uid=*",
        "{login}\\2a",
        "uid={login},ou=people,dc=example,dc=com",
        "{login}\\00",
    ],
)
async def test_what_is_typed_is_a_value_and_nothing_else(auth: AuthClient, directory: Directory, login: str) -> None:
    known = directory.add_person()
    provider = await add_directory(auth, await auth.sign_up(), of_directory(directory))
    assert await refusal(auth, provider, login.replace("{login}", known)) == "INVALID_CREDENTIALS"
    assert await sign_in(auth, provider, known)


async def test_a_login_with_the_signs_of_a_filter_is_found(auth: AuthClient, directory: Directory) -> None:
    login = directory.add_person(mail="strange@example.com")
    strange = "A (strange) * na\\me, of=somebody"
    directory.add_person(f"{login}2", cn=strange, mail="eve@example.com")
    settings = of_directory(directory, ldap={"user_filter": "(|(cn={login})(uid={login}))"})
    provider = await add_directory(auth, await auth.sign_up(), settings)
    assert (await sign_in(auth, provider, strange)).user.email == "eve@example.com"


async def test_an_empty_password_is_asked_of_no_directory(auth: AuthClient, liar: LyingDirectory) -> None:
    """It would be taken with anybody's name."""
    provider = await provider_of(auth, liar)
    for login, password in (("eve", ""), ("", PASSWORD), ("e\x00ve", PASSWORD), ("eve", "x" * 1001)):
        assert await refusal(auth, provider, login, password) == "INVALID_CREDENTIALS"
    assert liar.asked == []


async def test_a_bind_that_proves_nothing_is_not_tried(liar: LyingDirectory) -> None:
    url = URL(liar.url)
    reader, writer = await asyncio.open_connection(url.host, url.explicit_port)
    for dn, password in (("", PASSWORD), (EVE[0], "")):
        with pytest.raises(NotAnswered):
            await Connection(reader, writer).bind(dn, password)
    writer.close()
    assert liar.binds == []


async def test_an_entry_without_a_name_is_nobodys(auth: AuthClient, liar: LyingDirectory) -> None:
    """A bind without a name would be taken with anybody's password."""
    liar.entries = [("", EVE[1])]
    assert await refusal(auth, await provider_of(auth, liar), "eve") == "INVALID_CREDENTIALS"
    assert all(name for name, _ in liar.binds)


async def test_a_name_to_bind_with_needs_a_password(auth: AuthClient, liar: LyingDirectory) -> None:
    ada = await auth.sign_up()
    with pytest.raises(Invalid) as error:
        await add_directory(auth, ada, of_liar(liar), secret=None)
    assert set((error.value.details or {})["fields"]) == {"ldap.bindPassword"}
    provider = await add_directory(auth, ada, of_liar(liar, ldap={"bind_dn": ""}), secret=None)
    assert await sign_in(auth, provider, "eve")
    assert [name for name, _ in liar.binds] == [EVE[0]]
    with pytest.raises(Invalid):
        await change_directory(auth, ada, provider, of_liar(liar))


async def test_nobody_and_a_wrong_password_are_one_answer_after_the_same_questions(
    auth: AuthClient, liar: LyingDirectory
) -> None:
    provider = await provider_of(auth, liar)
    liar.bind_results[EVE[0]] = LDAPResultCode.INVALID_CREDENTIALS
    refusals = []
    for entries in ([EVE], [], [EVE, EVE], [EVE, EVE, EVE]):
        liar.entries = entries
        with pytest.raises(PulsegateError) as error:
            await sign_in(auth, provider, "eve")
        refusals.append((error.value.code, error.value.message))
    assert len(set(refusals)) == 1
    assert {tuple(type(message).__name__ for message in asked) for asked in liar.asked} == {
        ("BindRequest", "SearchRequest", "BindRequest")
    }
    assert {search.size_limit for search in liar.searches} == {2}
    # The password of somebody reaches nobody else's name.
    assert [name for name, password in liar.binds if password == PASSWORD and name == "cn=service"] == []


async def test_two_entries_for_one_login_are_nobody(auth: AuthClient, liar: LyingDirectory) -> None:
    provider = await provider_of(auth, liar)
    for entries, result in (
        ([EVE, EVE], LDAPResultCode.SUCCESS),
        ([EVE, EVE], LDAPResultCode.SIZE_LIMIT_EXCEEDED),
        ([EVE], LDAPResultCode.SIZE_LIMIT_EXCEEDED),
        ([EVE, EVE, EVE], LDAPResultCode.SUCCESS),
    ):
        liar.entries, liar.search_result = entries, result
        assert await refusal(auth, provider, "eve") == "INVALID_CREDENTIALS"


async def test_referrals_are_not_followed(auth: AuthClient, liar: LyingDirectory) -> None:
    async with lying_directory() as other:
        provider = await provider_of(auth, liar)
        liar.references = [f"{other.url}/dc=example,dc=com"]
        assert await sign_in(auth, provider, "eve")
        liar.entries = []
        assert await refusal(auth, provider, "eve") == "INVALID_CREDENTIALS"
        liar.search_result = LDAPResultCode.REFERRAL
        assert await refusal(auth, provider, "eve") == "SERVICE_UNAVAILABLE"
        liar.entries, liar.search_result = [EVE], LDAPResultCode.SUCCESS
        liar.bind_results[EVE[0]] = LDAPResultCode.REFERRAL
        assert await refusal(auth, provider, "eve") == "SERVICE_UNAVAILABLE"
        assert other.asked == []


async def test_a_service_that_may_not_bind_signs_nobody_in(auth: AuthClient, liar: LyingDirectory) -> None:
    liar.bind_results["cn=service"] = LDAPResultCode.INVALID_CREDENTIALS
    assert await refusal(auth, await provider_of(auth, liar), "eve") == "SERVICE_UNAVAILABLE"
    assert liar.searches == []


@pytest.mark.parametrize(
    "attributes",
    [{}, {"entryUUID": [b"1", b"2"]}, {"entryUUID": [b""]}, {"entryUUID": [b"\xff\xfe"]}, {"entryUUID": [b"x" * 256]}],
)
async def test_an_entry_without_a_lasting_name_signs_nobody_in(
    auth: AuthClient, liar: LyingDirectory, attributes: dict[str, list[bytes]]
) -> None:
    liar.entries = [(EVE[0], {"mail": [b"eve@example.com"], **attributes})]
    assert await refusal(auth, await provider_of(auth, liar), "eve") == "SSO_FAILED"


async def test_an_entry_without_an_address_is_not_taken(auth: AuthClient, liar: LyingDirectory) -> None:
    provider = await provider_of(auth, liar)
    for attributes in ({}, {"mail": [b"no address"]}):
        liar.entries = [(EVE[0], {"entryUUID": [b"1"], **attributes})]
        assert await refusal(auth, provider, "eve") == "SSO_NOT_ALLOWED"


def _with(injected: bytes, answer: bytes) -> bytes:
    return answer + injected


def _enumerated(answer: bytes) -> bytes:
    return answer.replace(b"\x0a\x01\x00", b"\x0a\x01\x7f")


@pytest.mark.parametrize(
    "says",
    [
        lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
        lambda _: b"\x30\x80\x00\x00",
        lambda _: b"\x30\x03\x02\x01\x01",
        lambda _: b"\x30\x0b\x02\x00\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
        lambda _: b"\x30\x85\x00\x00\x00\x00\x01\x00",
        lambda _: b"\x30\x84\x7f\xff\xff\xff",
        lambda _: b"\x30\x0c\x02\x01\x01\x61\x7f\x0a\x01\x00\x04\x00\x04\x00",
        lambda answer: answer + answer,
        lambda answer: answer.replace(b"\x02\x01", b"\x02\x01", 1).replace(b"\x61", b"\x78", 1),
        lambda answer: b"\x30\x82\x20\x00" + b"\x9f" + b"\xff" * 0x1FFF,
        _enumerated,
        lambda answer: b"\x30\x06\x02\x01\x01\x42\x01\x00",
    ],
)
async def test_what_is_no_answer_signs_nobody_in(
    auth: AuthClient, liar: LyingDirectory, says: Callable[[bytes], bytes]
) -> None:
    provider = await provider_of(auth, liar)
    liar.says = says
    async with asyncio.timeout(4):
        assert await refusal(auth, provider, "eve") == "SERVICE_UNAVAILABLE"


async def test_a_directory_that_hangs_up_is_away(auth: AuthClient, liar: LyingDirectory) -> None:
    provider = await provider_of(auth, liar)
    liar.hangs_up = True
    assert await refusal(auth, provider, "eve") == "SERVICE_UNAVAILABLE"


async def test_more_than_was_asked_for_is_not_read(auth: AuthClient, liar: LyingDirectory) -> None:
    provider = await provider_of(auth, liar)
    liar.references = ["ldap://elsewhere.example.com/"]
    liar.entries = [EVE, EVE, EVE, EVE, EVE, EVE]
    assert await refusal(auth, provider, "eve") == "SERVICE_UNAVAILABLE"
    liar.entries = [(EVE[0], {**EVE[1], "memberOf": [b"x" * 400_000]})]
    wide = await provider_of(auth, liar, role_claim="memberOf", role_mappings=[pb.RoleMapping(value="x", role=ADMIN)])
    assert await sign_in(auth, wide, "eve")
    liar.entries = [(EVE[0], {**EVE[1], "memberOf": [b"x" * 300_000]})] * 2
    assert await refusal(auth, wide, "eve") == "SERVICE_UNAVAILABLE"


async def test_a_directory_that_says_nothing_is_not_waited_for_long(
    auth: AuthClient, liar: LyingDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "_SECONDS", 0.2)
    provider = await provider_of(auth, liar)
    liar.says = lambda _: None
    assert await refusal(auth, provider, "eve") == "SERVICE_UNAVAILABLE"
    liar.says = lambda answer: answer
    monkeypatch.setattr(directories, "_SECONDS", 5.0)
    assert await sign_in(auth, provider, "eve")


async def test_a_directory_is_waited_for_no_longer_than_whoever_asks_waits_for_us(
    auth: AuthClient, liar: LyingDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who hears nothing would take auth for broken, and ask it nothing for a while."""
    monkeypatch.setattr("chassis.context._SECONDS_TO_ANSWER", 3.0)
    provider = await provider_of(auth, liar)
    liar.says = lambda _: None
    waits_until = context.DEADLINE.set(time.monotonic() + 4.0)
    try:
        assert await refusal(auth, provider, "eve") == "SERVICE_UNAVAILABLE"
    finally:
        context.DEADLINE.reset(waits_until)


async def test_groups_that_are_not_all_read_sign_nobody_in(auth: AuthClient, liar: LyingDirectory) -> None:
    groups = {"group_filter": "(member={dn})"}
    mapped = {"role_claim": "cn", "role_mappings": [pb.RoleMapping(value="ops", role=ADMIN)]}
    liar.entries = [(EVE[0], {**EVE[1], "cn": [b"ops"] * 1001})]
    assert await refusal(auth, await provider_of(auth, liar, ldap=groups, **mapped), "eve") == "SSO_FAILED"
    assert await refusal(auth, await provider_of(auth, liar, **mapped), "eve") == "SSO_FAILED"

    def cut_off(answer: bytes) -> bytes:
        if len(liar.asked[-1]) == 5:  # bind, search, bind, bind, search
            return answer.replace(b"\x0a\x01\x00", b"\x0a\x01\x04")
        return answer

    liar.entries, liar.says = [EVE], cut_off
    assert await refusal(auth, await provider_of(auth, liar, ldap=groups, **mapped), "eve") == "SSO_FAILED"


async def test_a_slow_directory_takes_no_room_from_others(
    auth: AuthClient, liar: LyingDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "_SECONDS", 3.0)
    slow = await provider_of(auth, liar)
    liar.says = lambda _: None
    async with lying_directory() as quick:
        other = await provider_of(auth, quick)
        waiting = [asyncio.create_task(refusal(auth, slow, f"eve{number}")) for number in range(10)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert await sign_in(auth, other, "eve")
        assert await asyncio.gather(*waiting) == ["SERVICE_UNAVAILABLE"] * 10
        assert len(liar.asked) == 8
        monkeypatch.setattr(directories, "_MOST_AT_ONCE", 0)
        assert await refusal(auth, other, "eve") == "SERVICE_UNAVAILABLE"


async def test_nothing_is_said_in_the_clear_where_encryption_is_refused_or_forged(
    auth: AuthClient, liar: LyingDirectory
) -> None:
    """Who sits in between may refuse StartTLS, or say the answers of later questions in advance."""
    provider = await provider_of(auth, liar, ldap={"start_tls": True})
    assert await refusal(auth, provider, "eve") == "SERVICE_UNAVAILABLE"
    liar.start_tls_result = LDAPResultCode.SUCCESS
    for injected in (b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00", b"x" * (1 << 14), b""):
        liar.says = partial(_with, injected)
        assert await refusal(auth, provider, "eve") == "SERVICE_UNAVAILABLE"
    assert liar.binds == []


async def test_a_directory_does_not_choose_how_long_a_handshake_computes(
    auth: AuthClient, directory: Directory
) -> None:
    ada = await auth.sign_up()
    async with client_hellos.heard() as (port, hellos):
        for certificate_authority in ("", directory.certificate):
            ldap = {"url": f"ldaps://127.0.0.1:{port}", "certificate_authority": certificate_authority}
            provider = await add_directory(auth, ada, of_directory(directory, ldap=ldap))
            assert await refusal(auth, provider, "eve") == "SERVICE_UNAVAILABLE"
    assert [hello.lets_the_server_choose_how_long_it_computes for hello in hellos] == [False, False]


async def test_a_certificate_that_nobody_trusts_or_of_another_name_is_refused(
    auth: AuthClient, directory: Directory
) -> None:
    ada, login = await auth.sign_up(), directory.add_person()
    elsewhere = directory.tls_url.replace("127.0.0.1", "127.0.0.2")
    for ldap in (
        {"certificate_authority": ""},
        {"certificate_authority": "", "url": directory.url},
        {"url": elsewhere},
        {"url": directory.tls_url.replace("127.0.0.1", "localhost")},
    ):
        provider = await add_directory(auth, ada, of_directory(directory, ldap=ldap))
        assert await refusal(auth, provider, login) == "SERVICE_UNAVAILABLE"


@pytest.mark.parametrize(
    ("ldap", "member"),
    [
        ({"url": "ldaps://10.0.0.1"}, None),
        ({"url": "ldaps://[::ffff:169.254.169.254]"}, None),
        ({"url": "ldap://dc1.example.com"}, None),
        ({"url": "ldaps://dc1.example.com:99999"}, None),
        ({"url": "https://dc1.example.com"}, "ldap.url"),
        ({"url": "ldaps://eve:hers@dc1.example.com"}, "ldap.url"),
        ({"url": "ldaps://dc1.example.com/dc=com??sub"}, "ldap.url"),
        ({"base_dn": ""}, "ldap.baseDn"),
        ({"user_filter": "(uid=eve)"}, "ldap.userFilter"),
        ({"user_filter": "(uid={login}"}, "ldap.userFilter"),
        ({"user_filter": "({login}=eve)"}, "ldap.userFilter"),
        ({"user_filter": "(!" * 240 + "(a={login})" + ")" * 240}, "ldap.userFilter"),
        ({"user_filter": "(uid={dn})"}, "ldap.userFilter"),
        ({"user_filter": "(uid={login})" + " " * 500}, "ldap.userFilter"),
        ({"group_filter": "(member=eve)"}, "ldap.groupFilter"),
        ({"id_attribute": "a)(b"}, "ldap.idAttribute"),
        ({"certificate_authority": "none"}, "ldap.certificateAuthority"),
        ({"certificate_authority": "x" * 65_537}, "ldap.certificateAuthority"),
    ],
)
async def test_settings_that_cannot_be_used_are_refused(
    auth: AuthClient, liar: LyingDirectory, ldap: dict[str, str], member: str | None
) -> None:
    with pytest.raises(Invalid) as error:
        await provider_of(auth, liar, ldap=ldap)
    assert member is None or set((error.value.details or {})["fields"]) == {member}


async def test_a_directory_whose_name_stands_for_a_private_address_is_not_asked(
    settings: Settings, liar: LyingDirectory
) -> None:
    url = liar.url.replace("127.0.0.1", "localhost")
    async with running_auth(settings, sso_private_networks=()) as auth:
        provider = await provider_of(auth, liar, ldap={"url": url, "start_tls": True})
        assert await refusal(auth, provider, "eve") == "SERVICE_UNAVAILABLE"
    assert liar.asked == []


async def test_a_provider_of_another_kind_or_tenant_or_that_is_disabled_signs_nobody_in(
    auth: AuthClient, liar: LyingDirectory, forger: ForgingIssuer
) -> None:
    ada = await auth.sign_up()
    provider = await add_directory(auth, ada, of_liar(liar))
    issuer = await add_provider(auth, ada, forger.url)
    disabled = of_liar(liar)
    disabled.enabled = False
    await change_directory(auth, ada, provider, disabled)
    for unknown in (provider, issuer, pb.IdentityProvider(id=ada.tenant_id), pb.IdentityProvider(id="nonsense")):
        assert await refusal(auth, unknown, "eve") == "NOT_FOUND"
    begin = pb.BeginSignOnRequest(provider_id=provider.id, challenge="x" * 43)
    with pytest.raises(PulsegateError) as error:
        await auth.sso("BeginSignOn", begin)
    assert (error.value.code, liar.asked) == ("NOT_FOUND", [])


async def test_filters_of_groups_are_filled_with_values_too(auth: AuthClient, liar: LyingDirectory) -> None:
    dn, login = "uid=e*)(cn=\\2a,dc=example,dc=com", "{dn}"
    liar.entries = [(dn, {**EVE[1], "cn": [b"ops"]})]
    groups = {"group_filter": "(&(!(cn=*secret*))(|(member={dn})(memberUid>={login})(cn={login}*{dn}*{login})))"}
    mapped = {"role_claim": "cn", "role_mappings": [pb.RoleMapping(value="ops", role=ADMIN)]}
    assert await sign_in(auth, await provider_of(auth, liar, ldap=groups, **mapped), login)
    asked = liar.searches[-1].filter
    assert isinstance(asked, FilterAnd)
    assert asked.filters[1] == FilterOr(
        [
            FilterEquality("member", dn.encode()),
            FilterGreaterOrEqual("memberUid", b"{dn}"),
            FilterSubstrings("cn", b"{dn}", [dn.encode()], b"{dn}"),
        ]
    )
    assert [name for name, _ in liar.binds] == ["cn=service", dn, "cn=service"]
