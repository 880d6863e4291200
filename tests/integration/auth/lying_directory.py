"""An LDAP directory that lies as it is told to: what it answers is what a test makes of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from sansldap import (
    BindRequest,
    ExtendedRequest,
    LDAPMessage,
    LDAPResultCode,
    LDAPServer,
    PartialAttribute,
    SearchRequest,
    SimpleCredential,
    UnbindRequest,
)

#: Attributes of an entry, by name.
Attributes = dict[str, list[bytes]]

EVE: tuple[str, Attributes] = (
    "uid=eve,dc=example,dc=com",
    {"entryUUID": [b"1f6a"], "mail": [b"eve@example.com"], "memberOf": [b"cn=ops"]},
)


class LyingDirectory:
    """Honest, unless a test changes something: it knows eve, and takes every password."""

    def __init__(self) -> None:
        self.url = ""
        self.entries: Sequence[tuple[str, Attributes]] = [EVE]
        #: Other directories that it refers to, among what it finds.
        self.references: list[str] = []
        self.search_result = LDAPResultCode.SUCCESS
        self.bind_results: dict[str, LDAPResultCode] = {}
        self.start_tls_result = LDAPResultCode.PROTOCOL_ERROR
        #: In place of everything that it would say; None: nothing at all is said.
        self.says: Callable[[bytes], bytes | None] = lambda answer: answer
        self.hangs_up = False
        #: It answers while this is set.
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.is_asked = asyncio.Event()
        #: What it was asked, by connection.
        self.asked: list[list[LDAPMessage]] = []

    @property
    def binds(self) -> list[tuple[str, str]]:
        """Names and passwords."""
        return [
            (message.name, message.authentication.password)
            for messages in self.asked
            for message in messages
            if isinstance(message, BindRequest) and isinstance(message.authentication, SimpleCredential)
        ]

    @property
    def searches(self) -> list[SearchRequest]:
        return [message for messages in self.asked for message in messages if isinstance(message, SearchRequest)]

    async def served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session, asked = LDAPServer(), list[LDAPMessage]()
        self.asked.append(asked)
        try:
            while (read := await reader.read(1 << 16)) and not self.hangs_up:
                self.is_asked.set()
                await self.goes_on.wait()
                for message in session.receive(read):
                    asked.append(message)
                    if isinstance(message, UnbindRequest):
                        return
                    self._answer(session, message)
                if (answer := self.says(session.data_to_send())) is not None:
                    writer.write(answer)
        except ConnectionError:
            return
        finally:
            writer.close()

    def _answer(self, session: LDAPServer, message: LDAPMessage) -> None:
        if isinstance(message, BindRequest):
            result = self.bind_results.get(message.name, LDAPResultCode.SUCCESS)
            session.bind_response(message.message_id, result_code=result)
        elif isinstance(message, ExtendedRequest):
            session.extended_response(message.message_id, result_code=self.start_tls_result)
        elif isinstance(message, SearchRequest):
            for dn, attributes in self.entries:
                parts = [PartialAttribute(name, values) for name, values in attributes.items()]
                session.search_result_entry(message.message_id, dn, parts)
            if self.references:
                session.search_result_reference(message.message_id, self.references)
            session.search_result_done(message.message_id, result_code=self.search_result)


@asynccontextmanager
async def lying_directory() -> AsyncIterator[LyingDirectory]:
    directory = LyingDirectory()
    server = await asyncio.start_server(directory.served, "127.0.0.1", 0)
    async with server:
        directory.url = f"ldap://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield directory
