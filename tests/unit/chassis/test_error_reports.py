"""Errors arrive where the DSN says, redacted, and nothing else does."""

import gzip
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import structlog

from chassis import context, logs
from chassis.error_reports import reporting


class Sentry(HTTPServer):
    """Keeps the events that it is sent."""

    events: list[dict[str, Any]]


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        text = gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
        assert isinstance(self.server, Sentry)
        self.server.events += [
            json.loads(line) for line in text.splitlines() if b'"event_id"' in line and b'"logger"' in line
        ]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    server = Sentry(("127.0.0.1", 0), _Taking)
    server.events = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    handlers, level = logging.root.handlers[:], logging.root.level
    logs.configure("test")
    correlation_id = context.CORRELATION_ID.set("c0ffee")
    yield server
    context.CORRELATION_ID.reset(correlation_id)
    server.shutdown()
    thread.join()
    server.server_close()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def test_errors_arrive_with_the_logs_fields_and_no_secret(sentry: Sentry) -> None:
    log = logs.get("tests")
    with reporting("test", f"http://public@127.0.0.1:{sentry.server_port}/1"):
        log.info("all is well")
        log.error(
            "sink refuses everything", sink="mimir", address="http://user:hunter2@mimir", api_key="sk_hunter2hunter2"
        )
        try:
            raise ValueError("password=hunter2")
        except ValueError:
            logging.getLogger("of.a.library").exception("it broke")
    log.error("after the end")
    refused, broke = sentry.events
    assert refused["message"] == "sink refuses everything"
    assert refused["tags"] == {"correlation_id": "c0ffee", "sink": "mimir"}
    assert refused["extra"]["service"] == "test"
    assert (broke["logger"], broke["message"]) == ("of.a.library", "it broke")
    assert "ValueError" in broke["extra"]["exception"]
    assert "hunter2" not in json.dumps(sentry.events)


def test_without_a_dsn_nothing_is_added() -> None:
    handlers = logging.root.handlers[:]
    with reporting("test", None):
        assert logging.root.handlers == handlers
