"""The master key: from it come the keys that encrypt at rest and that derive tokens which are kept nowhere."""

import hmac
import os
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12
_KEY_BYTES = 32


class WrongMasterKey(Exception):
    """What is in the database was not encrypted under this PULSEGATE_AUTH_MASTER_KEY, or was tampered with."""


class MasterKey:
    """Derives one key a purpose (HKDF-SHA-256, RFC 5869), so that no key serves two."""

    def __init__(self, secret: bytes) -> None:
        self._sealing = AESGCM(_derive(secret, b"sealing"))
        self._succession = _derive(secret, b"refresh succession")
        self._mailing = _derive(secret, b"mailed tokens")
        self._recovering = _derive(secret, b"recovery codes")
        #: 32 bytes, of which the key that signs heads of the audit log is made.
        self.audit_seed = _derive(secret, b"audit heads")

    def seal(self, plaintext: bytes, *, owner: str) -> bytes:
        """Nonce and AES-256-GCM ciphertext, bound to the row (`owner`) that it belongs to."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._sealing.encrypt(nonce, plaintext, owner.encode())

    def unseal(self, sealed: bytes, *, owner: str) -> bytes:
        """What was sealed for this owner. Raises WrongMasterKey."""
        try:
            return self._sealing.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], owner.encode())
        except InvalidTag as error:
            raise WrongMasterKey("encrypted under another PULSEGATE_AUTH_MASTER_KEY") from error

    def successor(self, spent: bytes) -> bytes:
        """32 bytes that only the master key's holder can derive from a spent refresh token."""
        return hmac.digest(self._succession, spent, sha256)

    def mailed(self, mail_id: bytes) -> bytes:
        """32 bytes that only the master key's holder can derive from the id of a mail."""
        return hmac.digest(self._mailing, mail_id, sha256)

    def recovery_digest(self, code: bytes) -> bytes:
        """32 bytes by which a recovery code is known at rest; without the master key nobody can try codes on them."""
        return hmac.digest(self._recovering, code, sha256)


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"pulsegate.auth " + purpose).derive(secret)
