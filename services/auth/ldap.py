"""Connections to LDAP directories (RFC 4511): TLS, simple binds and small searches, and nothing else.

sansldap speaks the protocol. It does no I/O, so that nothing here waits on a thread, and that the addresses, the time
and the bytes are ours to bound: libraries with connections of their own look names up themselves, and read as much as
a directory says it sends. Referrals are not followed.
"""

import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sansldap import (
    BindResponse,
    ExtendedOperations,
    ExtendedResponse,
    LDAPClient,
    LDAPFilter,
    LDAPMessage,
    LDAPResultCode,
    SearchResultDone,
    SearchResultEntry,
    SearchScope,
)

from services.auth.ldap_frames import MOST_BYTES, MOST_PARTS, NotLdap, require_plain, size_of, without_controls

_READ_BYTES = 1 << 14

_Answer = TypeVar("_Answer", bound=LDAPMessage)


class NotAnswered(Exception):
    """A directory that does not do what it is asked, or says what is no LDAP."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry of a directory, as far as it was asked for."""

    dn: str
    #: By name in lower case.
    attributes: Mapping[str, Sequence[bytes]]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search has found."""

    entries: Sequence[Entry]
    #: Whether there are more than were wanted.
    more: bool


class Connection:
    """One request at a time. Every method raises NotAnswered, NotLdap, OSError and sansldap's LDAPError."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._session = LDAPClient()
        self._read_ahead = bytearray()
        self._bytes_left = MOST_BYTES
        self._parts_left = MOST_PARTS

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Encrypts the connection, before anything else is said (RFC 4511, 4.14)."""
        self._session.extended_request(ExtendedOperations.LDAP_START_TLS.value)
        answer = await self._answer(ExtendedResponse)
        if answer.result.result_code is not LDAPResultCode.SUCCESS:
            raise NotAnswered(f"it does not take StartTLS ({_said(answer.result.result_code)})")
        # Who sits in between could say the first answers of what is to be the encrypted connection. What has been read
        # is less than one reading may bring, so that nothing waits to be read.
        if self._read_ahead or MOST_BYTES - self._bytes_left >= _READ_BYTES:
            raise NotAnswered("it says more in the clear than it was asked")
        await self._writer.start_tls(context, server_hostname=host)

    async def bind(self, dn: str, password: str) -> LDAPResultCode:
        """What the directory says to a name and its password, neither of which is empty.

        A bind without a password succeeds with anybody's name, without saying anything of it (RFC 4513, 5.1.2).
        """
        if not dn or not password:
            raise NotAnswered("a bind without a name or without a password proves nothing")
        self._session.bind_simple(dn, password)
        return (await self._answer(BindResponse)).result.result_code

    async def search(self, base: str, filter_: LDAPFilter, attributes: Sequence[str], *, most: int) -> Found:
        """The entries below `base`, at most `most` of them."""
        self._session.search_request(
            base, SearchScope.SUBTREE, size_limit=most, filter=filter_, attributes=list(attributes)
        )
        # References to other directories come between entries.
        messages, done = await self._answers(SearchResultDone, most=2 * most)
        entries = [_entry(message) for message in messages if isinstance(message, SearchResultEntry)]
        code = done.result.result_code
        if code not in (LDAPResultCode.SUCCESS, LDAPResultCode.SIZE_LIMIT_EXCEEDED):
            raise NotAnswered(f"it does not search ({_said(code)})")
        more = code is LDAPResultCode.SIZE_LIMIT_EXCEEDED or len(entries) > most
        return Found(entries=entries[:most], more=more)

    async def _answer(self, kind: type[_Answer]) -> _Answer:
        _, answer = await self._answers(kind, most=0)
        return answer

    async def _answers(self, kind: type[_Answer], *, most: int) -> tuple[Sequence[LDAPMessage], _Answer]:
        """At most `most` messages, and the one that ends the request."""
        self._writer.write(self._session.data_to_send())
        await self._writer.drain()
        before: list[LDAPMessage] = []
        while not isinstance(message := await self._message(), kind):
            if len(before) == most:
                raise NotAnswered("it answers what it was not asked")
            before.append(message)
        return before, message

    async def _message(self) -> LDAPMessage:
        while (size := size_of(self._read_ahead)) is None or len(self._read_ahead) < size:
            self._read_ahead += await self._read()
        message = bytes(self._read_ahead[:size])
        del self._read_ahead[:size]
        self._parts_left -= require_plain(message, self._parts_left)
        try:
            [found] = self._session.receive(without_controls(message))
        except (ValueError, IndexError) as error:
            raise NotLdap from error
        return found

    async def _read(self) -> bytes:
        read = await self._reader.read(_READ_BYTES)
        self._bytes_left -= len(read)
        if not read:
            raise NotAnswered("it hangs up")
        if self._bytes_left < 0:
            raise NotAnswered(f"it answers more than {MOST_BYTES} bytes")
        return read


def _entry(message: SearchResultEntry) -> Entry:
    """Options of attributes (`;binary`) are left out."""
    attributes = {found.name.partition(";")[0].lower(): found.values for found in message.attributes}
    return Entry(dn=message.object_name, attributes=attributes)


def _said(code: LDAPResultCode) -> str:
    return code.name.lower().replace("_", " ")
