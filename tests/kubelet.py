"""Pods of the rendered chart as processes of this machine, started, probed and stopped as a kubelet does it.

Each pod has an address of its own in 127.0.0.0/8, so every container listens on the ports that the chart says; one on
which something else of this machine listens, on every address perhaps, is another one wherever the chart says it. A
process is told what its container is told, with the three things that a node makes of it: the pod's address for
0.0.0.0, the folder of a mount for its path, and for a Service's name the addresses of the pods that its selector
chooses.

    with Cluster(rendered, secrets, folder) as cluster:
        cluster.run_jobs()                            the migrations, in the hooks' place
        pods = cluster.place(rendered.services())     gives addresses; the names of Services lead to them from now on
        for pod in pods: pod.start(); pod.wait_ready()
"""

import dataclasses
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local.layout import CHECKOUT
from deploy.local.programs import Program, port_is_free
from tests.chart_rendering import NAMESPACE, Object, Pod, Rendered
from tests.waiting import wait_for

_SERVICE_ADDRESS = re.compile(rf"(http://)?([a-z0-9-]+)\.{NAMESPACE}\.svc\.cluster\.local:(\d+)")
_HOST = re.compile(rf"([a-z0-9-]+)\.{NAMESPACE}\.svc\.cluster\.local")
#: Of this machine's environment; nothing else reaches a container.
_PASSED_ON = ("PATH", "COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START", "GRPC_ENABLE_FORK_SUPPORT")
_JOB_SECONDS = 120
_NUMBER = re.compile(r"\b[0-9]+\b")
#: Of a pod, as JSON: of its containers and of their probes.
_PORT = re.compile(r'"(?:containerPort|port)": ([0-9]+)')
#: Below those of stacks (`tests.suite_ports`), and none of which the chart speaks.
_OTHER_PORTS = range(12000, 20000)

#: name → key → text
Secrets = MutableMapping[str, Mapping[str, str]]


class RunningPod:
    """One pod on an address; `tree` has the project's files of its image."""

    def __init__(self, pod: Pod, address: str, cluster: "Cluster", *, tree: Path = CHECKOUT) -> None:
        self.pod = pod
        self.address = address
        self._cluster = cluster
        self._tree = tree
        self._folder = cluster.folder / f"{pod.component}-{address}"
        self._process: subprocess.Popen[bytes] | None = None

    def port(self, port: str | int) -> int:
        """A container port, by its name where it is not a number."""
        if isinstance(port, int):
            return port
        (found,) = (each["containerPort"] for each in self.pod.container["ports"] if each["name"] == port)
        return int(found)

    def start(self) -> None:
        """Call it from a thread that stays: the process ends with it."""
        self._folder.mkdir()
        self._process = self._program().start()

    def _program(self) -> Program:
        return Program(
            name=self.pod.component,
            argv=self._argv(),
            log=self.log,
            ports={},
            probe=lambda: None,
            environment=self._environment(),
        )

    @property
    def log(self) -> Path:
        return self._cluster.folder / f"{self.pod.component}-{self.address}.log"

    def wait_ready(self) -> None:
        """Startup, then readiness, within the time that the startup probe gives; then it must be found alive."""
        startup = self.pod.container["startupProbe"]
        patience = startup["periodSeconds"] * startup["failureThreshold"]
        for probe in ("startupProbe", "readinessProbe"):
            wait_for(partial(self._succeeds, probe), within_seconds=patience, what=f"{self.pod.component}: {probe}")
        self._require_alive()

    def _require_alive(self) -> None:
        """A kubelet restarts a pod after so many failures in a row, and forgets about fewer."""
        failures = []
        for _ in range(self.pod.container["livenessProbe"]["failureThreshold"]):
            if not (failure := self.probe("livenessProbe")):
                return
            failures.append(failure)
        raise AssertionError(f"{self.pod.component} is not alive: {failures}")

    def _succeeds(self, probe: str) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        return self.probe(probe) == ""

    def probe(self, name: str) -> str:
        """Asks once, as a kubelet asks; what is wrong, empty where nothing is."""
        probe = self.pod.container[name]
        if "grpc" in probe:
            return _probe_grpc(f"{self.address}:{probe['grpc']['port']}", probe["timeoutSeconds"])
        if "tcpSocket" in probe:
            return _probe_tcp(self.address, self.port(probe["tcpSocket"]["port"]), probe["timeoutSeconds"])
        if "exec" in probe:
            return self._probe_by_command(probe["exec"]["command"], probe["timeoutSeconds"])
        port = self.port(probe["httpGet"]["port"])
        return _probe_http(f"http://{self.address}:{port}{probe['httpGet']['path']}", probe["timeoutSeconds"])

    def _probe_by_command(self, command: Sequence[str], timeout_seconds: float) -> str:
        """Run in the pod, whose own 127.0.0.1 is its address here."""
        words = [word.replace("127.0.0.1", self.address) for word in command]
        told = self._environment()
        words[0] = shutil.which(words[0], path=told["PATH"]) or words[0]
        try:
            ended = subprocess.run(
                words, env=told, capture_output=True, text=True, timeout=timeout_seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            return str(error)
        return "" if ended.returncode == 0 else ended.stdout + ended.stderr

    def stop(self) -> int:
        """The `preStop` hook, SIGTERM, and the exit status; fails where SIGKILL would have been sent."""
        assert self._process is not None, "it does not run"
        hook = self.pod.container.get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})
        time.sleep(hook["sleep"]["seconds"])  # what the chart says that a kubelet does
        self._process.terminate()
        status = self._process.wait(timeout=self.pod.spec["terminationGracePeriodSeconds"])
        self._process = None
        return status

    def run(self) -> None:
        """Runs it to its end, which must be a good one."""
        self._folder.mkdir()
        ended = subprocess.run(
            self._argv(), env=self._environment(), capture_output=True, timeout=_JOB_SECONDS, check=False
        )
        assert ended.returncode == 0, (ended.stdout + ended.stderr).decode()

    def kill(self) -> None:
        """Ends it if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _argv(self) -> tuple[str, ...]:
        command, *rest = self.pod.container["command"]
        assert command == "python"
        return (sys.executable, *rest, *self.pod.container.get("args", []))

    def _environment(self) -> dict[str, str]:
        told = {name: self._here(value) for name, value in self.pod.environment.items()}
        assert not [value for value in told.values() if NAMESPACE + ".svc" in value], told
        of_image = {"PYTHONPATH": str(self._tree), "PYTHONSAFEPATH": "1"}
        return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | of_image | told

    def _here(self, value: str) -> str:
        if value == "0.0.0.0":  # noqa: S104 - compared, not bound
            return self.address
        for mount in self.pod.container["volumeMounts"]:
            if value.startswith(mount["mountPath"] + "/"):
                return str(self._mounted(mount["name"]) / value.removeprefix(mount["mountPath"] + "/"))
        return _SERVICE_ADDRESS.sub(self._address, value)

    def _address(self, found: re.Match[str]) -> str:
        """Of a Service: what DNS says to gRPC, and for HTTP one of the pods, as its virtual address leads to one."""
        scheme, service, port = found.groups()
        pods = self._cluster.behind(service, int(port))
        return f"{scheme}{pods[-1]}" if scheme else "ipv4:" + ",".join(pods)

    def _mounted(self, name: str) -> Path:
        """The folder of a volume, with the files that it names; what is claimed begins as an empty one."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        for volume in self.pod.spec["volumes"]:
            if volume["name"] == name:
                for path, text in self._cluster.files(volume):
                    (folder / path).write_text(self._written(text))
        return folder

    def _written(self, text: str) -> str:
        """What a file says here: a name in it leads where DNS would lead."""
        return _HOST.sub(lambda found: self._cluster.host(found[1]), text)


PodT = TypeVar("PodT", bound=RunningPod)


class Cluster:
    """Where the pods run; at the end of the block none does."""

    def __init__(
        self, rendered: Rendered, secrets: Secrets, folder: Path, is_free: Callable[[int], bool] = port_is_free
    ) -> None:
        self._ports = _in_place_of_taken(rendered, is_free)
        self.rendered = Rendered(tuple(json.loads(self._here(json.dumps(rendered.all)))))
        self.secrets = secrets
        self.folder = folder
        self._network = f"127.{random.randint(16, 250)}.{random.randint(0, 255)}"
        self._placed: list[RunningPod] = []

    def __enter__(self) -> "Cluster":
        self.folder.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pod in self._placed:
            pod.kill()
        if error is None:
            shutil.rmtree(self.folder)

    def place(self, pods: Sequence[Pod]) -> list[RunningPod]:
        """As many of each as its owner asks for."""
        return self.place_as(RunningPod, pods)

    def place_as(self, kind: Callable[[Pod, str, "Cluster"], PodT], pods: Sequence[Pod]) -> list[PodT]:
        """The same, as pods of a kind that is run in a way of its own."""
        here = [dataclasses.replace(pod, spec=json.loads(self._here(json.dumps(pod.spec)))) for pod in pods]
        wanted = [pod for pod in here for _ in range(pod.owner["spec"].get("replicas", 1))]
        first = len(self._placed) + 1
        placed = [kind(pod, f"{self._network}.{number}", self) for number, pod in enumerate(wanted, first)]
        self._placed += placed
        return placed

    def run_jobs(self) -> None:
        """What Helm runs before anything else."""
        for pod in self.place(self.rendered.jobs()):
            pod.run()

    def behind(self, service: str, port: int) -> list[str]:
        """The addresses behind a Service."""
        ports = self.rendered.named("Service", service)["spec"]["ports"]
        (target,) = (each["targetPort"] for each in ports if each["port"] == port)
        return [f"{pod.address}:{pod.port(target)}" for pod in self._chosen(service)]

    def host(self, service: str) -> str:
        """The address of a Service with a single pod."""
        (pod,) = self._chosen(service)
        return pod.address

    def _chosen(self, service: str) -> list[RunningPod]:
        selector = self.rendered.named("Service", service)["spec"]["selector"]
        chosen = [pod for pod in self._placed if pod.pod.is_selected_by(selector)]
        assert chosen, f"no pod is chosen by {service}"
        return chosen

    def files(self, volume: Object) -> Iterator[tuple[str, str]]:
        """What the Secrets or the ConfigMap of a volume put into it: path and text."""
        for path, text in self._kept(volume):
            yield path, self._here(text)

    def _kept(self, volume: Object) -> Iterator[tuple[str, str]]:
        if "configMap" in volume:
            yield from self.rendered.named("ConfigMap", volume["configMap"]["name"])["data"].items()
        for source in _secret_sources(volume):
            secret = self.secrets[source.get("name") or source["secretName"]]
            # All of it, where no items are named.
            for item in source.get("items") or [{"key": key, "path": key} for key in secret]:
                yield item["path"], secret[item["key"]]

    def _here(self, text: str) -> str:
        """A text with the ports of this machine."""
        return _NUMBER.sub(lambda found: self._ports.get(found[0], found[0]), text)


def _in_place_of_taken(rendered: Rendered, is_free: Callable[[int], bool]) -> dict[str, str]:
    """A free port for each of the pods' that is not."""
    said = {int(port) for port in _PORT.findall(json.dumps([pod.spec for pod in rendered.pods()]))}
    others = filter(is_free, random.sample(_OTHER_PORTS, len(_OTHER_PORTS)))
    return {str(port): str(next(others)) for port in sorted(said) if not is_free(port)}


def _secret_sources(volume: Object) -> list[dict[str, Any]]:
    if "projected" in volume:
        return [source["secret"] for source in volume["projected"]["sources"]]
    return [volume["secret"]] if "secret" in volume else []


def _probe_http(url: str, timeout_seconds: float) -> str:
    try:
        with urllib.request.urlopen(url, timeout=timeout_seconds) as response:  # noqa: S310 - an address made here
            return "" if 200 <= response.status < 400 else str(response.status)
    except (urllib.error.URLError, OSError) as error:
        return str(error)


def _probe_tcp(host: str, port: int, timeout_seconds: float) -> str:
    try:
        with socket.create_connection((host, port), timeout=timeout_seconds):
            return ""
    except OSError as error:
        return str(error)


def _probe_grpc(target: str, timeout_seconds: float) -> str:
    with grpc.insecure_channel(target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=timeout_seconds)
        except grpc.RpcError as error:
            return str(error)
    serving = health_pb2.HealthCheckResponse.SERVING
    return "" if answer.status == serving else health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
