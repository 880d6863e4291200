"""Certificate files of services under test."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from chassis.mutual_tls import MutualTls
from deploy.local.authority import Authority

DOMAIN = "pulsegate.internal"


def authority(name: str = "tests") -> Authority:
    return Authority.new(name, datetime.now(UTC))


class ServiceFiles:
    """The three files of one service."""

    def __init__(self, folder: Path, service: str, issuer: Authority) -> None:
        self.folder = folder / service
        self.folder.mkdir(exist_ok=True)
        self.service = service
        self.issue(issuer)
        self.believe(issuer)

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def authorities(self) -> Path:
        return self.folder / "authorities.pem"

    def issue(
        self, issuer: Authority, *names: str, now: datetime | None = None, life: timedelta = timedelta(hours=1)
    ) -> None:
        """A new certificate; by default in the service's own name, good from now on."""
        names = names or (f"{self.service}.{DOMAIN}",)
        leaf = issuer.issue(*names, now=now or datetime.now(UTC), life=life)
        self.certificate.write_bytes(leaf.certificate)
        self.key.write_bytes(leaf.key)

    def believe(self, *authorities: Authority) -> None:
        self.authorities.write_bytes(b"".join(each.pem for each in authorities))

    def tls(self) -> MutualTls:
        return MutualTls(self.certificate, self.key, self.authorities, DOMAIN)
