"""Profiles arrive where the address says, and nothing is sent or loaded without one."""

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from chassis import profiling
from deploy.local.layout import CHECKOUT


class Pyroscope(HTTPServer):
    """Keeps the profiles that it is sent."""

    profiles: list[bytes]


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Pyroscope)
        self.server.profiles.append(gzip.decompress(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def pyroscope() -> Iterator[Pyroscope]:
    server = Pyroscope(("127.0.0.1", 0), _Taking)
    server.profiles = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _a_function_that_takes_its_time() -> None:
    until = time.process_time() + 0.5
    while time.process_time() < until:
        sum(range(1000))


def test_what_takes_processor_time_is_seen(pyroscope: Pyroscope) -> None:
    with profiling.pushing("test", f"http://127.0.0.1:{pyroscope.server_port}"):
        _a_function_that_takes_its_time()
    sent = b"".join(pyroscope.profiles)
    assert b"pulsegate-test" in sent
    assert b"_a_function_that_takes_its_time" in sent


def test_a_server_that_is_away_hurts_nobody() -> None:
    began = time.monotonic()
    with profiling.pushing("test", "http://127.0.0.1:9"):
        pass
    assert time.monotonic() - began < 5


def test_without_an_address_the_profiler_is_not_even_loaded() -> None:
    program = (
        "import sys\n"
        "from chassis import profiling\n"
        "with profiling.pushing('test', None):\n"
        "    assert 'pyroscope' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, check=True)
