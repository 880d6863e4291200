"""How keys are agreed on with strangers, in TLS that the event loop itself computes."""

import ssl

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!SHA1:!AESCCM"


def limited(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same context, over the curve P-256 alone, which everybody has to offer (RFC 8446, section 9.1).

    With Diffie-Hellman over finite fields the other side chooses how long we compute, without doing so itself: a
    tenth of a second for a group that has a name, 0.65 s for a prime of a server's own.
    """
    context.set_ciphers(_CIPHERS)
    context.set_ecdh_curve("prime256v1")
    return context
