"""What a client of TLS says first (RFC 8446, section 4.1.2)."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

P_256 = 0x0017
FFDHE_8192 = 0x0104

_SUPPORTED_GROUPS, _KEY_SHARE = 10, 51


@dataclass(frozen=True)
class ClientHello:
    """One that fits into a record. Ciphers and groups are told by their numbers in the standards."""

    #: Up to the extensions, from the version on.
    beginning: bytes
    ciphers: frozenset[int]
    #: By type, in their order.
    extensions: dict[int, bytes]

    @classmethod
    def sent_by(cls, context: ssl.SSLContext) -> Self:
        """By a client with this context."""
        outgoing = ssl.MemoryBIO()
        connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            return cls.read(outgoing.read())
        raise AssertionError("nobody has answered")

    @classmethod
    def read(cls, record: bytes) -> Self:
        """From the first record of a connection."""
        message = record[5 + 4 :]
        at = 2 + 32
        at += 1 + message[at]
        ciphers = _numbers(message[at:])
        at += 2 + 2 * len(ciphers)
        at += 1 + message[at]
        beginning, extensions = message[:at], dict[int, bytes]()
        at += 2
        while at < len(message):
            kind, length = struct.unpack_from("!HH", message, at)
            extensions[kind] = message[at + 4 : at + 4 + length]
            at += 4 + length
        return cls(beginning, frozenset(ciphers), extensions)

    @property
    def groups(self) -> tuple[int, ...]:
        return _numbers(self.extensions[_SUPPORTED_GROUPS])

    @property
    def lets_the_server_choose_how_long_it_computes(self) -> bool:
        """It offers Diffie-Hellman over finite fields."""
        return any(group >> 8 == 1 for group in self.groups) or bool(self.ciphers & _FINITE_FIELD_CIPHERS)

    def wanting(self, group: int) -> bytes:
        """The record of a client that knows this group alone, and has computed nothing yet."""
        wanted = {_SUPPORTED_GROUPS: struct.pack("!HH", 2, group), _KEY_SHARE: struct.pack("!H", 0)}
        extensions = b"".join(
            struct.pack("!HH", kind, len(data)) + data for kind, data in (self.extensions | wanted).items()
        )
        message = self.beginning + struct.pack("!H", len(extensions)) + extensions
        handshake = b"\x01" + len(message).to_bytes(3, "big") + message
        return b"\x16\x03\x01" + struct.pack("!H", len(handshake)) + handshake


@asynccontextmanager
async def heard() -> AsyncIterator[tuple[int, list[ClientHello]]]:
    """The port of a server that hangs up once a client has said its first word, and what clients said."""
    hellos: list[ClientHello] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hellos.append(ClientHello.read(await reader.read(1 << 14)))
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1") as server:
        yield server.sockets[0].getsockname()[1], hellos


def _numbers(listed: bytes) -> tuple[int, ...]:
    (length,) = struct.unpack_from("!H", listed)
    return struct.unpack_from(f"!{length // 2}H", listed, 2)


_FINITE_FIELD_CIPHERS = frozenset(
    cipher["id"] & 0xFFFF for cipher in ssl.create_default_context().get_ciphers() if cipher["name"].startswith("DHE-")
)
