"""Servers of other projects that take what aggregators deliver, from Debian's packages.

Fixtures: `pushgateway`, `scraper` (a Prometheus that scrapes it), `victoria_metrics` and `classic_prometheus` (without
native histograms), each a `RunningServer` of its own for each test. Where the packages cannot be had, their tests are
skipped.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from deploy.local.debian import DebianUnavailable, find_program
from deploy.local.layout import CHECKOUT, Ports
from deploy.local.programs import Program, probe_http
from deploy.local.secrets import write_private
from deploy.local.servers import HOST, Prometheus
from tests.suite_servers import RunningServer, fetching_into, running


@dataclass(frozen=True, kw_only=True)
class DebianServer:
    """A program that listens on one port, answers GET `ready` once it works, and needs no preparation."""

    binary: Path
    arguments: tuple[str, ...]
    port: int
    log: Path
    ready: str

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def prepare(self) -> None:
        self.log.parent.mkdir(exist_ok=True)

    def program(self) -> Program:
        return Program(
            name=self.binary.name,
            argv=(str(self.binary), *self.arguments),
            log=self.log,
            ports={self.binary.name: self.port},
            probe=partial(probe_http, self.port, self.ready),
        )


class Scraper(Prometheus):
    """Prometheus that scrapes one target every second, and believes its labels."""

    def prepare(self) -> None:
        super().prepare()
        configuration = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                {
                    "job_name": job,
                    "honor_labels": True,
                    "static_configs": [{"targets": [f"{HOST}:{port}"]}],
                }
                for job, port in self.scraped.items()
            ],
        }
        write_private(self._configuration, json.dumps(configuration))


class ClassicPrometheus(Prometheus):
    """Prometheus before 3.8 as it is by default: it answers 500 to native histograms."""

    def program(self) -> Program:
        program = super().program()
        return replace(program, argv=tuple(word for word in program.argv if "native-histograms" not in word))


def debian_program(name: str, package: str) -> Path:
    folder = CHECKOUT / ".tools" / package
    try:
        with fetching_into(folder):
            return find_program(name, folder, package)
    except DebianUnavailable as unavailable:
        pytest.skip(f"{unavailable}; install {package} to run this test")


@pytest.fixture
def pushgateway(tmp_path: Path, port_blocks: Callable[[], Ports]) -> Iterator[RunningServer[DebianServer]]:
    port = port_blocks().public
    server = DebianServer(
        binary=debian_program("prometheus-pushgateway", "prometheus-pushgateway"),
        arguments=(f"--web.listen-address={HOST}:{port}",),
        port=port,
        log=tmp_path / "pushgateway.log",
        ready="/-/ready",
    )
    with running(server) as started:
        yield started


@pytest.fixture
def scraper(
    pushgateway: RunningServer[DebianServer],
    prometheus_binary: Path,
    tmp_path: Path,
    port_blocks: Callable[[], Ports],
) -> Iterator[RunningServer[Scraper]]:
    server = Scraper(
        binary=prometheus_binary,
        folder=tmp_path / "scraper",
        port=port_blocks().server("prometheus"),
        log=tmp_path / "scraper.log",
        scraped={"pushgateway": pushgateway.server.port},
    )
    with running(server) as started:
        yield started


@pytest.fixture
def victoria_metrics(tmp_path: Path, port_blocks: Callable[[], Ports]) -> Iterator[RunningServer[DebianServer]]:
    port = port_blocks().public
    server = DebianServer(
        binary=debian_program("victoria-metrics", "victoria-metrics"),
        arguments=(
            f"-httpListenAddr={HOST}:{port}",
            f"-storageDataPath={tmp_path / 'victoria-metrics'}",
            "-search.latencyOffset=0s",  # by default the newest half minute is not shown
            "-search.cacheTimestampOffset=0s",
            "-search.disableCache",
        ),
        port=port,
        log=tmp_path / "victoria-metrics.log",
        ready="/health",
    )
    with running(server) as started:
        yield started


@pytest.fixture
def classic_prometheus(
    prometheus_binary: Path, tmp_path: Path, port_blocks: Callable[[], Ports]
) -> Iterator[RunningServer[Prometheus]]:
    server: Prometheus = ClassicPrometheus(
        binary=prometheus_binary,
        folder=tmp_path / "classic",
        port=port_blocks().server("prometheus"),
        log=tmp_path / "classic.log",
    )
    with running(server) as started:
        yield started
