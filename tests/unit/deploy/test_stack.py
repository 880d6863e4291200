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
from deploy.local.prometheus import PrometheusMissing, find_prometheus
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
    assert f"in use already: port {ports.server('nats')} (nats). Pulsegate takes 16 consecutive ports" in ended.stderr
    assert f"PULSEGATE_PORT={ports.public} on: choose another one" in ended.stderr


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
    ended = run(PULSEGATE_PORT="70000", PULSEGATE_DEFAULT_PLAN="gold")
    assert ended.returncode == os.EX_CONFIG
    port, plan = ended.stderr.splitlines()
    assert port == "PULSEGATE_PORT: must be a whole number from 1024 to 65518"
    assert plan.startswith("PULSEGATE_DEFAULT_PLAN: must be one of")


def test_wrong_settings_of_all_services_are_named_before_anything_starts(run: Run) -> None:
    ended = run(PULSEGATE_DEFAULT_PLAN="gold", PULSEGATE_BCRYPT_COST="3", PULSEGATE_LOG_LANES="none")
    assert ended.returncode == os.EX_CONFIG
    assert {line.partition(":")[0]: line.partition(" (read by ")[2] for line in ended.stderr.splitlines()} == {
        "PULSEGATE_DEFAULT_PLAN": "auth, gateway)",
        "PULSEGATE_BCRYPT_COST": "auth)",
        "PULSEGATE_LOG_LANES": "receiver, aggregator)",
    }
    assert not ended.stdout


def test_wrong_settings_of_a_canary_are_named_where_one_is_asked_for(run: Run) -> None:
    ended = run(PULSEGATE_CANARY="1", PULSEGATE_CANARY_PATIENCE_SECONDS="0")
    assert ended.returncode == os.EX_CONFIG
    assert ended.stderr.startswith("PULSEGATE_CANARY_PATIENCE_SECONDS: must be a number")
    assert ended.stderr.endswith(" (read by canary)\n")


def test_a_data_folder_that_cannot_be_used_is_named_with_its_setting(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for impossible in (tmp_path / "file", tmp_path / "file" / "data", Path("/proc/data")):
        ended = run(PULSEGATE_DATA=str(impossible))
        assert ended.returncode == 1
        assert ended.stderr.strip().startswith(f"PULSEGATE_DATA: {impossible} cannot be used (")
        assert ended.stderr.strip().endswith("name a folder that you may write to")


def test_a_folder_of_somebody_else_stays_as_it_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home" / "letters").touch()
    before = (tmp_path / "home").stat().st_mode
    ended = run(PULSEGATE_DATA=str(tmp_path / "home"))
    assert ended.returncode == 1
    assert f"PULSEGATE_DATA: {tmp_path / 'home'} holds something else than Pulsegate's data" in ended.stderr
    assert (tmp_path / "home").stat().st_mode == before
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letters"]


def test_a_prometheus_that_is_no_program_is_named(run: Run, tmp_path: Path) -> None:
    for command in ("run", "demo"):
        for wrong in ("/nowhere/prometheus", str(tmp_path)):
            ended = run(command, PROMETHEUS_BIN=wrong)
            assert ended.returncode == 1
            assert ended.stderr.strip().startswith(f"PROMETHEUS_BIN: {wrong} is not a program")


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
