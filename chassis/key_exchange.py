"""How keys are agreed on with strangers, in TLS that the event loop itself computes."""

import ssl
from typing import Any, Self

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!SHA1:!AESCCM"
#: Of what a server says in a handshake. A chain of four certificates has about five thousand.
_MOST_HANDSHAKE_BYTES = 1 << 14


def limited(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same context, over the curve P-256 alone, which everybody has to offer (RFC 8446, section 9.1), and for one
    handshake a connection.

    With Diffie-Hellman over finite fields the other side chooses how long we compute, without doing so itself: a
    tenth of a second for a group that has a name, 0.65 s for a prime of a server's own. Towards servers, a chain of
    certificates is limited too: one of seventy takes 0.4 s.
    """
    context.set_ciphers(_CIPHERS)
    context.set_ecdh_curve("prime256v1")
    context.options |= ssl.OP_NO_RENEGOTIATION
    if context.protocol is ssl.PROTOCOL_TLS_CLIENT:
        context.sslobject_class = _ShortHandshake
    return context


class _ShortHandshake(ssl.SSLObject):
    """A client that reads no long answer before its handshake is over: all of a chain is verified in one call."""

    _incoming: ssl.MemoryBIO
    _bytes_read = 0

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, *arguments: Any, **named: Any) -> Self:
        """As `SSLContext.wrap_bio` makes one."""
        made: Self = super()._create(incoming, *arguments, **named)  # type: ignore[misc]
        made._incoming = incoming
        return made

    def do_handshake(self) -> None:
        waiting = self._incoming.pending
        if self._bytes_read + waiting > _MOST_HANDSHAKE_BYTES:
            raise ssl.SSLError(f"the server says more than {_MOST_HANDSHAKE_BYTES} bytes before the handshake is over")
        try:
            super().do_handshake()
        finally:
            self._bytes_read += waiting - self._incoming.pending
