"""What must not be guessed of a sign-on under way."""

import base64
import hmac
from dataclasses import dataclass
from hashlib import sha256


@dataclass(frozen=True, kw_only=True)
class SignOnSecrets:
    """What one sign-on must not be guessed by, all derived from what its browser keeps."""

    browser_secret: str

    @property
    def nonce(self) -> str:
        """Of OpenID Connect."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """Of PKCE (RFC 7636)."""
        return self._derived("code verifier")

    @property
    def challenge(self) -> str:
        return challenge_of(self.verifier)

    @property
    def request_id(self) -> str:
        """Of SAML's request, which the answer names: ids begin with no digit."""
        return f"_{self._derived('saml request')}"

    def _derived(self, purpose: str) -> str:
        return _base64url(hmac.digest(self.browser_secret.encode(), purpose.encode(), sha256))


def challenge_of(verifier: str) -> str:
    """S256 of PKCE (RFC 7636, 4.2)."""
    return _base64url(sha256(verifier.encode()).digest())


def _base64url(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")
