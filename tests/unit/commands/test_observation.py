"""How the commands ask."""

import base64
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from pulsegate.observation import fetched


class _Guarded(BaseHTTPRequestHandler):
    """Answers whoever has the password."""

    def do_GET(self) -> None:
        told = "Basic " + base64.b64encode(b"reader:s3cret@pw").decode()
        self.send_response(200 if self.headers["Authorization"] == told else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


@pytest.fixture
def guarded() -> Iterator[int]:
    """Its port."""
    with HTTPServer(("127.0.0.1", 0), _Guarded) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_password_in_an_address_is_sent(guarded: int) -> None:
    assert fetched(f"http://reader:s3cret%40pw@127.0.0.1:{guarded}/") == (200, "")
    assert fetched(f"http://127.0.0.1:{guarded}/")[0] == 401


@pytest.mark.parametrize("host", ["nowhere.invalid", "127.0.0.1:9", "127.0.0.1:none"])
def test_a_password_is_not_in_what_is_said_of_an_address(host: str) -> None:
    status, reason = fetched(f"https://reader:s3cret@{host}/")
    assert status == 0
    assert reason
    assert "s3cret" not in reason
