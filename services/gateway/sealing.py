"""What the gateways keep in Redis, which sees neither names nor contents: keyed hashes and sealed bytes."""

import hmac
import os
import zlib

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


class Sealing:
    """For one `purpose`; the same for all gateways with the same secret."""

    def __init__(self, secret: str, purpose: str) -> None:
        self._naming = hmac.digest(secret.encode(), b"pulsegate gateway: names of " + purpose.encode(), "sha256")
        self._sealing = AESGCM(hmac.digest(secret.encode(), b"pulsegate gateway: " + purpose.encode(), "sha256"))

    def digest(self, text: bytes) -> bytes:
        """What stands for a text: 32 bytes."""
        return hmac.digest(self._naming, text, "sha256")

    def seal(self, name: str, plain: bytes) -> bytes:
        """Compressed, and bound to the name that it is kept under."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._sealing.encrypt(nonce, zlib.compress(plain, 1), name.encode())

    def unseal(self, name: str, sealed: bytes) -> bytes:
        """Raises InvalidTag for what was not sealed under this name."""
        return zlib.decompress(self._sealing.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode()))
