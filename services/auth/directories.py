"""Signing in by a password that an LDAP directory takes: whose entry it is, and a bind as that entry."""

import asyncio
import secrets
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

from sansldap import LDAPError, LDAPResultCode

from chassis import key_exchange
from services.auth.domain import email_fault
from services.auth.errors import (
    InvalidLogin,
    OutOfReach,
    ProviderAway,
    SignOnFailed,
    TooManyGroups,
    TooManySignOns,
    UnsafeAddress,
)
from services.auth.identity_providers import ProviderId, ProviderOf, Vouched
from services.auth.ldap import Connection, Entry, NotAnswered
from services.auth.ldap_filters import DN, LOGIN, filled
from services.auth.ldap_frames import NotLdap
from services.auth.outbound import Outbound
from services.auth.provider_settings import LdapSettings

DirectoryProvider = ProviderOf[LdapSettings]

#: For all that one sign-on asks.
_SECONDS = 5.0
_MOST_AT_ONCE = 64
_MOST_AT_ONCE_PER_PROVIDER = 8
_MOST_LOGIN_CHARACTERS = 255
_MOST_PASSWORD_CHARACTERS = 1000
_MOST_SUBJECT_CHARACTERS = 255
_MOST_GROUPS = 1000
#: Two names for one login are none.
_MOST_ENTRIES = 2
#: Of Active Directory: an UUID in the order of bytes that Windows has.
_OBJECT_GUID = "objectguid"
#: What says nothing of a password: the directory itself cannot or will not answer.
_OWN_TROUBLE = frozenset(
    {
        LDAPResultCode.OPERATIONS_ERROR,
        LDAPResultCode.PROTOCOL_ERROR,
        LDAPResultCode.TIME_LIMIT_EXCEEDED,
        LDAPResultCode.STRONG_AUTH_REQUIRED,
        LDAPResultCode.REFERRAL,
        LDAPResultCode.ADMIN_LIMIT_EXCEEDED,
        LDAPResultCode.CONFIDENTIALITY_REQUIRED,
        LDAPResultCode.BUSY,
        LDAPResultCode.UNAVAILABLE,
        LDAPResultCode.OTHER,
    }
)


class Directories:
    """Asks directories within five seconds, so many at a time that none keeps others from being asked."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._trusted = key_exchange.limited(ssl.create_default_context())
        self._under_way: Counter[ProviderId] = Counter()

    async def vouched(self, provider: DirectoryProvider, secret: str | None, login: str, password: str) -> Vouched:
        """Whose password it is.

        Raises InvalidLogin, after as many questions, for a login that nobody or more than one has and for a wrong
        password; SignOnFailed, ProviderAway, TooManySignOns, TooManyLookups.
        """
        if not _sound(login, _MOST_LOGIN_CHARACTERS) or not 0 < len(password) <= _MOST_PASSWORD_CHARACTERS:
            raise InvalidLogin
        url = provider.settings.url
        with self._room(provider.id):
            try:
                async with asyncio.timeout(_SECONDS), self._connected(provider.settings) as connection:
                    return await _Asked(connection, provider, secret).vouched(login, password)
            except UnsafeAddress as error:
                raise OutOfReach(url, error.reason) from error
            except (LDAPError, NotAnswered, NotLdap, TimeoutError, OSError) as error:
                raise ProviderAway(url, str(error) or "it takes too long") from error

    @contextmanager
    def _room(self, provider_id: ProviderId) -> Iterator[None]:
        if self._under_way.total() >= _MOST_AT_ONCE or self._under_way[provider_id] >= _MOST_AT_ONCE_PER_PROVIDER:
            raise TooManySignOns
        self._under_way[provider_id] += 1
        try:
            yield
        finally:
            self._under_way -= Counter([provider_id])

    @asynccontextmanager
    async def _connected(self, settings: LdapSettings) -> AsyncIterator[Connection]:
        """Encrypted, unless the directory is on this machine and is not to be."""
        url = self._outbound.require_directory(settings.url, start_tls=settings.start_tls)
        context, at_once = self._context(settings), url.scheme == "ldaps"
        host, port = str(url.raw_host), url.explicit_port or (636 if at_once else 389)
        reader, writer = await self._outbound.connect(host, port, context if at_once else None)
        try:
            connection = Connection(reader, writer)
            if settings.start_tls and not at_once:
                await connection.start_tls(context, host)
            yield connection
        finally:
            writer.transport.abort()

    def _context(self, settings: LdapSettings) -> ssl.SSLContext:
        if not settings.certificate_authority:
            return self._trusted
        return key_exchange.limited(ssl.create_default_context(cadata=settings.certificate_authority))


class _Asked:
    """One sign-on at a directory, on a connection of its own."""

    def __init__(self, connection: Connection, provider: DirectoryProvider, secret: str | None) -> None:
        self._connection = connection
        self._settings = provider.settings
        self._role_attribute = provider.admission.role_claim
        self._secret = secret

    async def vouched(self, login: str, password: str) -> Vouched:
        await self._bind_as_ourselves()
        entry = await self._entry(login)
        # Nobody's entry is asked as much as somebody's.
        dn = entry.dn if entry else f"cn={secrets.token_hex(16)},{self._settings.base_dn}"
        code = await self._connection.bind(dn, password)
        if code in _OWN_TROUBLE:
            raise NotAnswered(f"it does not take binds ({code.name})")
        if entry is None or code is not LDAPResultCode.SUCCESS:
            raise InvalidLogin
        return self._vouched(entry, await self._groups(entry, login))

    async def _bind_as_ourselves(self) -> None:
        if not self._settings.bind_dn:
            return
        code = await self._connection.bind(self._settings.bind_dn, self._secret or "")
        if code is not LDAPResultCode.SUCCESS:
            raise NotAnswered(f"it does not take bindDn and its password ({code.name})")

    async def _entry(self, login: str) -> Entry | None:
        """The only one with this login."""
        settings = self._settings
        wanted = [settings.id_attribute, settings.email_attribute, *self._own_group_attributes()]
        found = await self._connection.search(
            settings.base_dn, filled(settings.user_filter, {LOGIN: login}), wanted, most=_MOST_ENTRIES
        )
        return found.entries[0] if len(found.entries) == 1 and not found.more and found.entries[0].dn else None

    async def _groups(self, entry: Entry, login: str) -> Sequence[str]:
        settings = self._settings
        if not settings.group_filter or not self._role_attribute:
            return _texts(entry, self._role_attribute)
        await self._bind_as_ourselves()
        found = await self._connection.search(
            settings.group_base_dn or settings.base_dn,
            filled(settings.group_filter, {LOGIN: login, DN: entry.dn}),
            [self._role_attribute],
            most=_MOST_GROUPS,
        )
        if found.more:
            raise TooManyGroups
        return [value for group in found.entries for value in _texts(group, self._role_attribute)]

    def _own_group_attributes(self) -> list[str]:
        return [] if self._settings.group_filter or not self._role_attribute else [self._role_attribute]

    def _vouched(self, entry: Entry, groups: Sequence[str]) -> Vouched:
        subjects, emails = _texts(entry, self._settings.id_attribute), _texts(entry, self._settings.email_attribute)
        if len(subjects) != 1 or not _sound(subjects[0], _MOST_SUBJECT_CHARACTERS):
            raise SignOnFailed("its name for you is none that can be kept")
        email = emails[0] if emails and not email_fault(emails[0]) else ""
        if len(groups) > _MOST_GROUPS:
            raise TooManyGroups
        return Vouched(subject=subjects[0], email=email, groups=groups)


def _sound(text: str, most: int) -> bool:
    return 0 < len(text) <= most and text.isprintable()


def _texts(entry: Entry, attribute: str) -> list[str]:
    """The values of an attribute; those that are no text are left out."""
    values = entry.attributes.get(attribute.lower(), ())
    if attribute.lower() == _OBJECT_GUID:
        return [str(UUID(bytes_le=value)) for value in values if len(value) == 16]
    return [value.decode() for value in values if _is_utf8(value)]


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
