"""Each command where servers are away, or are not what they are taken for: a line or two, and no password."""

import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT

_PASSWORD = "hunter2-of-somebody"


@pytest.fixture(
    params=[
        (200, "<html>another server</html>"),
        (503, "{}"),
        (200, "[]"),
        (200, '{"status": "ready"}'),
        (0, "INFO {}\r\n"),
        None,
    ],
    ids=["page", "empty", "list", "no checks", "no HTTP", "away"],
)
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a server that answers everything so; or of none."""
    if request.param is None:
        yield "http://127.0.0.1:9"
        return
    status, body = request.param

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if status:
                self.send_response(status)
                self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def installation(address: str, tmp_path: Path) -> Path:
    path = tmp_path / "installation.toml"
    path.write_text(
        f"""
        prometheus = "{address}"
        sink = "{address}"
        database = "postgresql://postgres:{_PASSWORD}@127.0.0.1:9/pulsegate"
        nats = "nats://pulsegate:{_PASSWORD}@127.0.0.1:9"
        nats_monitoring = ["{address}"]
        valkey = "redis://:{_PASSWORD}@127.0.0.1:9"
        [processes]
        gateway = "{address}"
        """
    )
    return path


def _ended(*arguments: object, **variables: str) -> tuple[int, str]:
    """A command's status, and all that it says."""
    environment = {**os.environ, "PULSEGATE_CANARY_KEY_PASSWORD": _PASSWORD, "PYTHONPATH": str(CHECKOUT), **variables}
    command = [sys.executable, "-m", "pulsegate", *map(str, arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    said = ended.stdout + ended.stderr
    assert "Traceback" not in said, said
    assert _PASSWORD not in said
    return ended.returncode, said


def test_status_and_doctor_say_what_does_not_answer(installation: Path) -> None:
    status, said = _ended("--installation", installation, "status")
    assert (status, "away" in said, "Prometheus does not answer" in said) == (1, True, True)
    status, said = _ended("--installation", installation, "doctor")
    assert status == 1
    assert "gateway does not answer" in said
    assert "Postgres does not answer" in said


def test_the_installation_can_be_named_by_a_variable_and_its_files_stand_beside_it(installation: Path) -> None:
    (installation.parent / "dsn").write_text(f"postgresql://postgres:{_PASSWORD}@127.0.0.1:9/pulsegate\n")
    lines = [
        'database = {file = "dsn"}' if "database =" in line else line for line in installation.read_text().splitlines()
    ]
    installation.write_text("\n".join(lines))
    status, said = _ended("doctor", PULSEGATE_INSTALLATION=str(installation))
    assert status == 1
    assert "Postgres does not answer" in said


def test_a_bundle_is_made_all_the_same_and_says_what_is_not_in_it(installation: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.tar.gz"
    status, said = _ended("--installation", installation, "support-bundle", bundle)
    assert status == 0
    assert "logs are not in it" in said
    with tarfile.open(bundle) as archive:
        assert {"status.txt", "doctor.txt", "gateway/metrics.txt"} <= set(archive.getnames())


def test_a_canary_gets_no_key(address: str) -> None:
    status, said = _ended("canary-key", address, "--email", "canary@example.com")
    assert (status, said.count("\n")) == (1, 1)


def test_a_backup_is_neither_made_nor_restored_and_leaves_nothing(tmp_path: Path) -> None:
    told = tmp_path / "installation.toml"
    told.write_text(
        f'prometheus = "http://127.0.0.1:9"\nnats = "nats://127.0.0.1:9"\nprocesses = {{}}\n'
        f'database = "postgresql://postgres:{_PASSWORD}@127.0.0.1:9/pulsegate"\n'
    )
    status, said = _ended("--installation", told, "backup", tmp_path / "made")
    assert (status, said.count("\n")) == (1, 1)
    assert "the database says" in said
    status, said = _ended("--installation", told, "backup", tmp_path / "nowhere" / "made")
    assert (status, said.count("\n")) == (1, 1)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"format": 1, "made_at": 1.0, "positions": {}, "frames": 0}))
    with tarfile.open(tmp_path / "backup", "w") as archive:
        archive.add(manifest, "manifest.json")
    status, said = _ended("--installation", told, "restore", "--yes", tmp_path / "backup")
    assert (status, said.count("\n")) == (1, 1)
    assert "the database says" in said
    assert {path.name for path in tmp_path.iterdir()} == {"installation.toml", "manifest.json", "backup"}
