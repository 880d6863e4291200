"""What keeps a stack from starting is said in words that help."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT, Ports
from deploy.local.prometheus import HOW_TO_GET_IT, PrometheusMissing, find_prometheus
from tests.waiting import wait_for


@pytest.fixture
def run(tmp_path: Path, port_blocks: Callable[[], Ports]) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "deploy.local", *(arguments or ("run",))],
            cwd=CHECKOUT,
            env={
                **os.environ,
                "PULSEGATE_PORT": str(port_blocks().public),
                "PULSEGATE_DATA": str(tmp_path / "data"),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_used_port_is_named(run: Run, port_blocks: Callable[[], Ports]) -> None:
    ports = port_blocks()
    with socket.create_server(("127.0.0.1", ports.server("nats"))):
        ended = run(PULSEGATE_PORT=str(ports.public))
    assert ended.returncode == 1
    assert f"in use already: port {ports.server('nats')} (nats); choose other ports with PULSEGATE_PORT" in ended.stderr


def test_a_second_copy_on_the_same_data_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    holding = (
        "import fcntl, pathlib, signal, sys\n"
        f"lock = open({str(tmp_path / 'data' / 'lock')!r}, 'w')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        f"pathlib.Path({str(tmp_path / 'held')!r}).touch()\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", holding]) as holder:
        try:
            wait_for((tmp_path / "held").exists)
            ended = run()
        finally:
            holder.send_signal(signal.SIGTERM)
    assert ended.returncode == 1
    assert f"another Pulsegate runs on the data folder {tmp_path / 'data'}" in ended.stderr


def test_wrong_settings_are_all_named(run: Run) -> None:
    ended = run(PULSEGATE_PORT="none")
    assert ended.returncode == os.EX_CONFIG
    assert "PULSEGATE_PORT: must be a whole number from 1024 to 65519" in ended.stderr


def test_the_demo_ends_with_one_line_where_there_is_no_prometheus(run: Run) -> None:
    ended = run("demo", PROMETHEUS_BIN="/nowhere/prometheus")
    assert ended.returncode == 1
    assert ended.stderr.strip() == HOW_TO_GET_IT


class TestFindPrometheus:
    def test_what_is_named_comes_before_path(self, tmp_path: Path) -> None:
        named = tmp_path / "prometheus"
        named.touch(mode=0o755)
        assert find_prometheus(named, tmp_path) == named

    def test_what_was_fetched_before_is_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        fetched = tmp_path / "usr" / "bin" / "prometheus"
        fetched.parent.mkdir(parents=True)
        fetched.touch()
        assert find_prometheus(None, tmp_path) == fetched

    def test_without_a_way_to_fetch_it_says_how_to_get_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(PrometheusMissing, match="apt-get install prometheus"):
            find_prometheus(None, tmp_path / "folder")
        assert not (tmp_path / "folder").exists()
