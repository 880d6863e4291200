"""A scripted ingestion endpoint: keeps what generated clients send, and answers as the contract says."""

import gzip
import json
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Ingestion:
    """Everything received, one entry a metric; a batch that comes again is counted once."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self._seen: set[tuple[str, int]] = set()
        #: Statuses to answer first, before anything is taken.
        self.refusals: list[int] = []
        self.url = ""

    def take(self, key: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """The status and the answer to a batch."""
        if self.refusals:
            return self.refusals.pop(0), {"error": {"code": "SERVICE_UNAVAILABLE"}}
        batch = json.loads(body)
        self.keys.add(key)
        if (batch["producer"], batch["sequence"]) not in self._seen:
            self._seen.add((batch["producer"], batch["sequence"]))
            self.metrics.extend(batch["metrics"])
        return 202, {"accepted": len(batch["metrics"]), "rejected": []}

    def totals(self) -> Counter[tuple[str, str]]:
        """Sums by metric and labels (as JSON) of every counter and observation."""
        totals: Counter[tuple[str, str]] = Counter()
        for metric in self.metrics:
            values = metric["value"] if isinstance(metric["value"], list) else [metric["value"]]
            totals[metric["name"], json.dumps(metric.get("labels", {}), sort_keys=True)] += sum(values)
        return totals


@contextmanager
def serving() -> Iterator[Ingestion]:
    """An endpoint on a free port, in a thread."""
    ingestion = Ingestion()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            path = urllib.parse.urlsplit(self.path)
            assert path.path == "/api/v1/metrics", self.path
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            key = self.headers.get("X-API-Key") or urllib.parse.parse_qs(path.query)["key"][0]
            status, answer = ingestion.take(key, body)
            encoded = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    ingestion.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield ingestion
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
