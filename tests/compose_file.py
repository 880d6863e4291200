"""The Compose file, as Compose reads it, and as the objects that a cluster of processes runs (`tests.kubelet`).

filled(**given)      the text, with the variables of .env.example; those that are given go before these
services(**given)    what it says about each service
secrets(folder)      what secrets.sh makes: name → text
rendered(elsewhere)  services, each with an address by its name; the hosts in `elsewhere` are those of other servers
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.local.layout import CHECKOUT
from tests.chart_rendering import NAMESPACE, Object, Rendered

FOLDER = CHECKOUT / "deploy" / "compose"
FILE = FOLDER / "compose.yaml"

_VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")
_PORTS = {"operations": 8081, "grpc": 9000, "public": 8080}
#: The Secret of those objects with what secrets.sh makes, and the one with the files in ./tls.
SECRET = "compose"
TLS_SECRET = "compose-tls"


def filled(**given: str) -> str:
    """As Compose fills it in."""
    lines = (FOLDER / ".env.example").read_text().splitlines()
    known = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert given.keys() <= known.keys()
    known |= given

    def value(found: re.Match[str]) -> str:
        name, kind, default = found.groups()
        assert name in known, f"{name} is not in .env.example"
        assert known[name] or kind != ":?", f"{name} is required"
        return known[name] or (default if kind == ":-" else "")

    return _VARIABLE.sub(value, FILE.read_text())


def services(**given: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(filled(**given))["services"]
    return found


def secrets(folder: Path) -> dict[str, str]:
    """Runs secrets.sh, which may be run again, in an empty folder."""
    script = Path(shutil.copy(FOLDER / "secrets.sh", folder))
    for _ in range(2):
        subprocess.run([script], check=True)
    return {path.name: path.read_text() for path in (folder / "secrets").iterdir()}


def rendered(elsewhere: Mapping[str, str]) -> Rendered:
    """`elsewhere`: host:port → host:port."""
    ours = {name: each for name, each in services().items() if each["image"].startswith("pulsegate-")}
    workloads = [_workload(name, each, {*ours}, elsewhere) for name, each in ours.items()]
    return Rendered((*workloads, *(_service(name) for name in ours)))


def _workload(name: str, described: Object, names: set[str], elsewhere: Mapping[str, str]) -> Object:
    told = {key: _elsewhere(str(text), names, elsewhere) for key, text in described["environment"].items()}
    container = {
        "command": ["python", "-m", f"services.{described['image'].removeprefix('pulsegate-')}"],
        "args": described.get("command", []),
        "env": [{"name": key, "value": text} for key, text in told.items()],
        "ports": [{"name": port, "containerPort": number} for port, number in _PORTS.items()],
        "volumeMounts": [
            {"name": "secrets", "mountPath": "/run/secrets"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - of the container
            *_tls_mounts(described),
        ],
        **dict.fromkeys(("startupProbe", "readinessProbe", "livenessProbe"), _health_check()),
    }
    items = [{"key": secret, "path": secret} for secret in described["secrets"]]
    pod = {
        "containers": [container],
        "volumes": [
            {"name": "secrets", "secret": {"secretName": SECRET, "items": items}},
            {"name": "tls", "secret": {"secretName": TLS_SECRET}},
            {"name": "tmp"},
        ],
        "terminationGracePeriodSeconds": int(described.get("stop_grace_period", "10s").removesuffix("s")),
    }
    migrates = described.get("command") == ["migrate"]
    labels = {"app.kubernetes.io/component": name, **({} if migrates else {"pulsegate.dev/track": "compose"})}
    return {
        "kind": "Job" if migrates else "Deployment",
        "metadata": {"name": name},
        "spec": {"template": {"metadata": {"labels": labels}, "spec": pod}},
    }


def _tls_mounts(described: Object) -> list[Object]:
    mounted = (volume.split(":") for volume in described.get("volumes", []))
    return [{"name": "tls", "mountPath": path} for source, path, *_ in mounted if source == "./tls"]


def _elsewhere(text: str, names: set[str], elsewhere: Mapping[str, str]) -> str:
    for host, other in elsewhere.items():
        text = text.replace(host, other)
    return re.sub(rf"\b({'|'.join(sorted(names))}):(\d+)", rf"\1.{NAMESPACE}.svc.cluster.local:\2", text)


def _service(name: str) -> Object:
    ports = [{"port": number, "targetPort": port} for port, number in _PORTS.items()]
    return {
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app.kubernetes.io/component": name}, "ports": ports},
    }


def _health_check() -> Object:
    """The image's."""
    text = (CHECKOUT / "deploy" / "docker" / "Dockerfile").read_text()
    options = {name: int(seconds) for name, seconds in re.findall(r"--(interval|timeout|start-period)=(\d+)s", text)}
    (found,) = re.finditer(r"http://127\.0\.0\.1:(\d+)(/health/\w+)", text)
    return {
        "httpGet": {"path": found[2], "port": int(found[1])},
        "periodSeconds": options["interval"],
        "timeoutSeconds": options["timeout"],
        "failureThreshold": options["start-period"] // options["interval"],
    }
