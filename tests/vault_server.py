"""A stand-in for Vault's HTTP API, as its documentation has it: AppRole, tokens that end, key-value version 2."""

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROLE_ID, SECRET_ID = "role-of-tests", "secret-of-tests"

#: Status, and what is written as JSON, or as it is where it is text.
Answer = tuple[int, Any]


class VaultServer:
    """What it keeps, and what it was asked."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, str]] = {}
        self.tokens: set[str] = set()
        self.lease_seconds = 3600
        self.renewable = True
        self.secret_id = SECRET_ID
        #: What answers in Vault's place.
        self.instead: Answer | None = None
        self.asked: list[str] = []
        self.address = ""

    def answer(self, path: str, token: str, body: dict[str, Any]) -> Answer:
        self.asked.append(path)
        if self.instead is not None:
            return self.instead
        if path == "/v1/auth/approle/login":
            known = (body.get("role_id"), body.get("secret_id")) == (ROLE_ID, self.secret_id)
            return self._signed_in() if known else (400, {"errors": ["invalid role or secret ID"]})
        if token not in self.tokens:
            return 403, {"errors": ["permission denied"]}
        if path == "/v1/auth/token/renew-self":
            return self._lease(token) if self.renewable else (400, {"errors": ["lease is not renewable"]})
        if path in self.kept:
            return 200, {"data": {"data": self.kept[path], "metadata": {"version": 1, "destroyed": False}}}
        return 404, {"errors": []}

    def _signed_in(self) -> Answer:
        token = f"hvs.{secrets.token_urlsafe(24)}"
        self.tokens.add(token)
        return self._lease(token)

    def _lease(self, token: str) -> Answer:
        auth = {"client_token": token, "lease_duration": self.lease_seconds, "renewable": self.renewable}
        return 200, {"auth": auth}

    def keep(self, path: str, **fields: str) -> None:
        """`path` with its mount: `secret/pulsegate/auth`."""
        mount, _, rest = path.partition("/")
        self.kept[f"/v1/{mount}/data/{rest}"] = fields


@contextmanager
def vault_server() -> Iterator[VaultServer]:
    vault = VaultServer()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            token = self.headers.get("X-Vault-Token", "")
            status, answer = vault.answer(self.path.partition("?")[0], token, body)
            encoded = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - what the server calls

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        vault.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield vault
        server.shutdown()
