"""The backing servers of one embedded stack, put together from its data folder, ports and secrets."""

from dataclasses import dataclass
from pathlib import Path

from deploy.local.bootstrap import DATABASE, SIGN_IN_ROLES
from deploy.local.certificates import Certificates
from deploy.local.layout import RULES, DataFolder, Ports
from deploy.local.secrets import SecretFolder
from deploy.local.servers import HOST, Nats, Postgres, Prometheus, Server, Valkey


@dataclass(frozen=True, kw_only=True)
class Backing:
    """The servers, the secrets that open them, and the services' certificates."""

    secrets: SecretFolder
    postgres: Postgres
    valkey: Valkey
    nats: Nats
    #: None where there is no Prometheus on this machine; its address is fixed all the same
    prometheus: Prometheus | None
    prometheus_url: str
    #: of the services, for each other; None: they speak plain gRPC
    certificates: Certificates | None = None

    def servers(self) -> tuple[Server, ...]:
        found: tuple[Server, ...] = (self.postgres, self.valkey, self.nats)
        return found if self.prometheus is None else (*found, self.prometheus)

    def role_passwords(self) -> dict[str, str]:
        """The password of each database role that signs in."""
        return {role: self.secrets.password(f"{role}_password") for role in SIGN_IN_ROLES}

    def dsn_file(self, role: str) -> Path:
        """A file with the role's address of the database."""
        password = self.secrets.password(f"{role}_password")
        return self.secrets.write(f"{role}_dsn", self.postgres.dsn(DATABASE, user=role, password=password))


def backing_servers(
    data: DataFolder, ports: Ports, prometheus_binary: Path | None, certificates: Certificates | None = None
) -> Backing:
    """Describes the servers; starts nothing."""
    secrets = SecretFolder(data.secrets)
    return Backing(
        secrets=secrets,
        postgres=Postgres(
            folder=data.server("postgres"),
            port=ports.server("postgres"),
            password=secrets.password("postgres_password"),
            log=data.log("postgres"),
        ),
        valkey=Valkey(
            folder=data.server("valkey"),
            port=ports.server("valkey"),
            password=secrets.password("valkey_password"),
            log=data.log("valkey"),
        ),
        nats=Nats(
            folder=data.server("nats"),
            port=ports.server("nats"),
            monitoring_port=ports.server("nats-monitoring"),
            password=secrets.password("nats_password"),
            log=data.log("nats"),
        ),
        prometheus=None if prometheus_binary is None else _prometheus(prometheus_binary, data, ports),
        prometheus_url=f"http://{HOST}:{ports.server('prometheus')}",
        certificates=certificates,
    )


def _prometheus(binary: Path, data: DataFolder, ports: Ports) -> Prometheus:
    return Prometheus(
        binary=binary,
        folder=data.server("prometheus"),
        port=ports.server("prometheus"),
        log=data.log("prometheus"),
        scraped=ports.scraped(),
        rules=RULES,
    )
