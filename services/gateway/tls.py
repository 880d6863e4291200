"""TLS at the public door, for installations without a proxy that brings it."""

import asyncio
import ssl
from pathlib import Path

from cryptography import x509

from chassis import logs, metrics
from chassis.file_versions import versions

log = logs.get(__name__)

#: How often is looked whether there is a new certificate.
_LOOK_SECONDS = 10.0


class Certificate:
    """A certificate with its key, both in PEM files, which may be replaced while connections use them."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises ValueError where the files are no such pair."""
        self._certificate = certificate
        self._key = key
        self._loaded = versions(certificate, key)
        #: For new connections: TLS 1.2 and later, no client certificates.
        self.context = self._read()
        self._publish_expiry()

    def _read(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise ValueError(f"the certificate and its key cannot be used ({reason})") from error
        return context

    def renew(self) -> None:
        """Takes a new pair for new connections, if there is one; a faulty one is told and left alone."""
        found = versions(self._certificate, self._key)
        if found == self._loaded:
            return
        self._loaded = found
        try:
            self._read()  # a context that fails to load would be left with half of the pair
            self.context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        except (OSError, ValueError) as error:
            log.warning("the new certificate is not taken, the old one goes on", reason=str(error))
        else:
            self._publish_expiry()
            log.info("certificate renewed")

    def _publish_expiry(self) -> None:
        """Of the certificate itself, which stands before its chain."""
        shown, *_chain = x509.load_pem_x509_certificates(self._certificate.read_bytes())
        metrics.CERTIFICATE_EXPIRY.labels("public").set(shown.not_valid_after_utc.timestamp())

    async def renewing(self) -> None:
        """Keeps looking for a new pair, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.renew()
