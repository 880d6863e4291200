"""A scripted ingestion server that keeps to the public contract: it counts each (producer, sequence) once."""

import gzip
import json
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

DEADLINE_SECONDS = 15.0


def wait_until(condition: Callable[[], Any], what: str, timeout_seconds: float = DEADLINE_SECONDS) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.005)


class Answer(NamedTuple):
    status: int = 202
    body: Optional[Dict[str, Any]] = None
    headers: Tuple[Tuple[str, str], ...] = ()
    after: Optional[threading.Event] = None  # answer only then
    cut: bool = False  # count the batch, then close the connection without an answer


class Request(NamedTuple):
    at: float  # time.monotonic()
    body: bytes  # decompressed
    headers: Dict[str, str]
    connection: Tuple[str, int]

    @property
    def batch(self) -> Dict[str, Any]:
        return json.loads(self.body)  # type: ignore[no-any-return]

    @property
    def name(self) -> Tuple[str, int]:
        return self.batch["producer"], self.batch["sequence"]


class IngestionServer:
    """Answers each request with the next of `script`, then with `otherwise`, and the `refused_key` with 401.

    May be stopped and started again.
    Its port stays its own meanwhile: a socket that listens to nobody holds it.
    """

    def __init__(self) -> None:
        self.requests: List[Request] = []
        self.script: List[Answer] = []
        self.otherwise = Answer()
        self.refused_key = ""
        self.batches: Dict[Tuple[str, int], Dict[str, Any]] = {}  # those counted
        self._lock = threading.Lock()
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self._port: int = self._place.getsockname()[1]
        self._http: Optional[ThreadingHTTPServer] = None

    def __enter__(self) -> "IngestionServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._place.close()

    def start(self) -> None:
        owner = self

        class Handler(_Handler):
            ingestion = owner

        self._http = _Server(("127.0.0.1", self._port), Handler)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Be away: connections are refused."""
        if self._http:
            self._http.shutdown()
            self._http.close_connections()
            self._http.server_close()
            self._http = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def totals(self) -> "Counter[str]":
        """The sum of all values counted, by metric."""
        totals: "Counter[str]" = Counter()
        with self._lock:
            for batch in self.batches.values():
                for metric in batch["metrics"]:
                    value = metric["value"]
                    totals[metric["name"]] += sum(value) if isinstance(value, list) else value
        return totals

    def metrics(self) -> List[Dict[str, Any]]:
        return [metric for batch in self.batches.values() for metric in batch["metrics"]]

    def take(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            if request.headers["X-API-Key"] == self.refused_key:
                return Answer(401)
            answer = self.script.pop(0) if self.script else self.otherwise
            if answer.status == 202:
                self.batches.setdefault(request.name, request.batch)
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self._open: List[Any] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.append(request)
        super().process_request(request, client_address)

    def close_connections(self) -> None:
        for connection in self._open:
            self.shutdown_request(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections break here on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece
    ingestion: IngestionServer

    def do_POST(self) -> None:
        assert self.path == "/api/v1/metrics"
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        body = gzip.decompress(sent) if self.headers.get("Content-Encoding") == "gzip" else sent
        request = Request(time.monotonic(), body, dict(self.headers), self.client_address)
        answer = self.ingestion.take(request)
        if answer.after:
            answer.after.wait(DEADLINE_SECONDS)
        if answer.cut:
            self.close_connection = True
            return
        default = {"accepted": len(request.batch["metrics"]), "rejected": []} if answer.status == 202 else {}
        content = json.dumps(default if answer.body is None else answer.body).encode()
        self.send_response(answer.status)
        for header in (*answer.headers, ("Content-Length", str(len(content)))):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Requests are kept, not printed."""
