"""TLS at the public door, for installations without a proxy that brings it."""

import asyncio
import ssl
from pathlib import Path
from typing import Any, Self

from cryptography import x509

from chassis import key_exchange, logs, metrics
from chassis.file_versions import versions

log = logs.get(__name__)

#: How often is looked whether there is a new certificate.
_LOOK_SECONDS = 10.0


class _Newest(ssl.SSLContext):
    """Stands for whichever context is newest: one alone keeps a pair for each kind of key, an old one too."""

    newest: ssl.SSLContext

    def __new__(cls, newest: ssl.SSLContext) -> Self:
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        self.newest = newest
        return self

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """Of each new connection: the event loop calls it."""
        return self.newest.wrap_bio(*arguments, **named)


class Certificate:
    """A certificate with its key, both in PEM files, which may be replaced while connections use them."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises ValueError where the files are no such pair."""
        self._certificate = certificate
        self._key = key
        self._loaded = versions(certificate, key)
        #: For the listener.
        self.context = _Newest(self._read())

    def _read(self) -> ssl.SSLContext:
        """TLS 1.2 and later, no client certificates, with the pair that is there now, whose end is published. Raises
        ValueError."""
        context = key_exchange.limited(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
        try:
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
            shown, *_chain = x509.load_pem_x509_certificates(self._certificate.read_bytes())
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise ValueError(f"the certificate and its key cannot be used ({reason})") from error
        metrics.CERTIFICATE_EXPIRY.labels("public").set(shown.not_valid_after_utc.timestamp())
        return context

    def renew(self) -> None:
        """Takes a new pair for new connections, if there is one; a faulty one is told and left alone."""
        found = versions(self._certificate, self._key)
        if found == self._loaded:
            return
        self._loaded = found
        try:
            self.context.newest = self._read()
        except ValueError as error:
            log.warning("the new certificate is not taken, the old one goes on", reason=str(error))
        else:
            log.info("certificate renewed")

    async def renewing(self) -> None:
        """Keeps looking for a new pair, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.renew()
