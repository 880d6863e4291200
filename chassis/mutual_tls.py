"""Mutual TLS between services: who a process is, whom it believes, and new certificates without a restart.

A process is known by one DNS name in its certificate, `<service>.<domain>` (`gateway.pulsegate.internal`). Servers read
it of the caller, callers expect it of the server, wherever that listens. Certificates are those of the installation's
own authorities; no public one is believed. How all this fits together: docs/zero-trust.md.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtensionOID

from chassis import file_versions, logs, metrics
from chassis.errors import Unauthenticated
from chassis.tasks import in_background

log = logs.get(__name__)

#: How often is looked whether there are new files.
_LOOK_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Material:
    """One version of what a process shows and believes, all of it PEM."""

    #: with its chain
    certificate: bytes
    key: bytes = field(repr=False)
    #: those whose certificates are believed, of both sides
    authorities: bytes
    expires_at: datetime

    def of_server(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(self.key, self.certificate)], root_certificates=self.authorities
        )

    def of_channel(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)


class MutualTls:
    """This process's certificate and the authorities that it believes; their files may be replaced at any time."""

    def __init__(self, certificate: Path, key: Path, authorities: Path, domain: str) -> None:
        """Raises ValueError where the files cannot be used, or where the certificate names no service of `domain`."""
        self._files = (certificate, key, authorities)
        self._domain = domain
        #: This process, as its first certificate names it: it stays the same one.
        self._service = ""
        self._seen = file_versions.versions(*self._files)
        self.material = self._read()
        self._renewed = asyncio.Event()

    def _read(self) -> Material:
        try:
            certificate, key, authorities = (path.read_bytes() for path in self._files)
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read ({type(error).__name__})") from error
        leaf = _leaf(certificate, key, authorities)
        services = self._services(_names(leaf))
        if len(services) != 1:
            raise ValueError(f"the certificate must have exactly one DNS name <service>.{self._domain}")
        if services[0] != (self._service or services[0]):
            raise ValueError(f"the certificate is of {services[0]}, and this process is {self._service}")
        if leaf.not_valid_after_utc <= datetime.now(UTC):
            raise ValueError(f"the certificate has expired at {leaf.not_valid_after_utc.isoformat()}")
        self._service = services[0]
        metrics.CERTIFICATE_EXPIRY.labels("internal").set(leaf.not_valid_after_utc.timestamp())
        return Material(certificate=certificate, key=key, authorities=authorities, expires_at=leaf.not_valid_after_utc)

    def renew(self) -> None:
        """Takes the files that are there for new connections; faulty ones are told and the old ones go on."""
        seen = file_versions.versions(*self._files)
        if seen == self._seen:
            return
        try:
            self.material = self._read()
        except ValueError as error:
            log.warning("new certificate files are not taken, the old ones go on", reason=str(error))
        else:
            log.info("certificate files renewed", expires_at=self.material.expires_at.isoformat())
            self._renewed.set()
            self._renewed = asyncio.Event()
        self._seen = seen

    async def renewing(self) -> None:
        """Keeps looking for new files, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.renew()

    async def other_than(self, material: Material) -> Material:
        """What there is now, as soon as that is not `material`."""
        while self.material is material:
            await self._renewed.wait()
        return self.material

    def name_of(self, service: str) -> str:
        """The name that the certificate of a service must have."""
        return f"{service}.{self._domain}"

    def caller(self, connection: Mapping[str, Iterable[bytes]]) -> str:
        """The service at the other end of a connection, by gRPC's account of it. Raises Unauthenticated."""
        services = self._services([name.decode() for name in connection.get("peer_dns", ())])
        if len(services) != 1:
            raise Unauthenticated("The caller's certificate names no single service of this installation.")
        return services[0]

    def _services(self, names: Sequence[str]) -> list[str]:
        suffix = f".{self._domain}"
        return [name.removesuffix(suffix) for name in names if name.endswith(suffix)]

    def server_credentials(self) -> grpc.ServerCredentials:
        """Of a server that speaks to nobody without a certificate. Each new connection gets the newest files."""
        told = self.material

        def newer() -> grpc.ServerCertificateConfiguration | None:  # gRPC calls it on a thread of its own
            nonlocal told
            newest = self.material
            if newest is told:
                return None
            told = newest
            return newest.of_server()

        return _server_credentials(told.of_server(), newer)


def _server_credentials(
    first: grpc.ServerCertificateConfiguration, newer: Callable[[], grpc.ServerCertificateConfiguration | None]
) -> grpc.ServerCredentials:
    # gRPC takes None for "as before"; its stubs do not say so.
    return grpc.dynamic_ssl_server_credentials(first, newer, require_client_authentication=True)  # type: ignore[arg-type]


def _leaf(certificate: bytes, key: bytes, authorities: bytes) -> x509.Certificate:
    """The process's own certificate. Raises ValueError."""
    for pem, what in ((certificate, "certificate"), (authorities, "authorities")):
        try:
            x509.load_pem_x509_certificates(pem)
        except ValueError as error:
            raise ValueError(f"the file of the {what} holds no PEM certificate") from error
    leaf = x509.load_pem_x509_certificates(certificate)[0]
    try:
        public = load_pem_private_key(key, password=None).public_key()
    except (ValueError, TypeError) as error:
        raise ValueError("the file of the key holds no PEM key without a password") from error
    written = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*written) != leaf.public_key().public_bytes(*written):
        raise ValueError("the key is not the certificate's")
    return leaf


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        extension = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except x509.ExtensionNotFound:
        return []
    names = extension.value
    return names.get_values_for_type(x509.DNSName) if isinstance(names, x509.SubjectAlternativeName) else []


@asynccontextmanager
async def kept_fresh(tls: MutualTls | None) -> AsyncIterator[MutualTls | None]:
    """Looks for new files while open; nothing to do without mutual TLS."""
    if tls is None:
        yield None
        return
    async with in_background(tls.renewing()):
        yield tls
