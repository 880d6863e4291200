"""The data folder and the ports of one embedded stack."""

import os
from dataclasses import dataclass
from pathlib import Path

#: Where this checkout lies; services are started from here.
CHECKOUT = Path(__file__).resolve().parents[2]
#: Recording rules and alerts, wherever Pulsegate runs.
RULES = CHECKOUT / "deploy" / "helm" / "pulsegate" / "files" / "rules"
DASHBOARDS = RULES.with_name("dashboards")

#: Of what always runs.
OPERATIONS_PORTS = {"gateway": 1, "auth": 2, "config": 4, "codegen": 6, "receiver": 8, "aggregator": 10}
_GRPC = {"auth": 3, "config": 5, "codegen": 7, "receiver": 9}
_SERVERS = {"postgres": 11, "valkey": 12, "nats": 13, "nats-monitoring": 14, "prometheus": 15}
_CANARY = {"canary": 16}


@dataclass(frozen=True)
class Ports:
    """Sixteen consecutive ports of 127.0.0.1, the gateway's public one first; one more where a canary flies."""

    public: int
    canary: bool = False

    def operations(self, service: str) -> int:
        """Health and metrics."""
        return self.public + {**OPERATIONS_PORTS, **_CANARY}[service]

    def scraped(self) -> dict[str, int]:
        """The operations port of everything that runs."""
        return {name: self.operations(name) for name in (*OPERATIONS_PORTS, *(_CANARY if self.canary else ()))}

    def grpc(self, service: str) -> int:
        return self.public + _GRPC[service]

    def server(self, name: str) -> int:
        return self.public + _SERVERS[name]

    def listeners(self) -> dict[int, str]:
        """Who listens on each port."""
        return {
            self.public: "the gateway",
            **{port: f"{name} (operations)" for name, port in self.scraped().items()},
            **{self.grpc(name): f"{name} (gRPC)" for name in _GRPC},
            **{self.server(name): name for name in _SERVERS},
        }


@dataclass(frozen=True)
class DataFolder:
    """What lies where below `PULSEGATE_DATA`."""

    root: Path

    def make(self) -> None:
        """Others may pass through as far as Postgres, which must not run as root, but not look around."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o711 if os.geteuid() == 0 else 0o700)
        (self.root / ".gitignore").write_text("*\n")  # wherever it is, none of this is anybody's source
        self.logs.mkdir(exist_ok=True)
        self.secrets.mkdir(mode=0o700, exist_ok=True)

    @property
    def is_foreign(self) -> bool:
        """Whether something else than an embedded stack keeps its files here."""
        return self.root.is_dir() and any(self.root.iterdir()) and not (self.lock.exists() or self.secrets.exists())

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def server(self, name: str) -> Path:
        """The folder of one backing server."""
        return self.root / name

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def mails(self) -> Path:
        """What auth would mail, a file each, unless a mail server is set."""
        return self.root / "mails"

    @property
    def canary(self) -> Path:
        """What the canary has sent."""
        return self.root / "canary.json"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def certificates(self) -> Path:
        """Of the services, for each other; a folder each."""
        return self.root / "certificates"

    @property
    def lock(self) -> Path:
        """Held by the supervisor that works on this folder."""
        return self.root / "lock"

    @property
    def run_json(self) -> Path:
        """Names, ports and process ids of what was started; what is down has no process id."""
        return self.root / "run.json"
