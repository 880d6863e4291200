"""What the canary needs of an installation: a tenant of its own, its metric's definition, and a key that opens no more.

It asks for them at the public door, as a person would.
"""

import json
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Any

from pulsegate.observation import DIRECTLY

_TIMEOUT_SECONDS = 30.0

#: What `services/canary` sends.
_DEFINITION = {
    "name": "pulsegate_canary_units_total",
    "type": "counter",
    "help": "What the canary has sent.",
    "labels": [{"name": "run", "required": True}],
}
_KEY = {"name": "canary", "kind": "secret", "scopes": ["ingest:write", "query:read"]}


class CanaryError(Exception):
    """There is no key for the canary; the message says what was answered."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        #: the HTTP status; 0: there was no answer
        self.status = status


def new_key(address: str, email: str, password: str) -> str:
    """A secret key of the account's first project, which may write and query and nothing else.

    The account and its tenant are made where they are missing, and so is the definition. Keys that were
    made before go on working. Raises CanaryError.
    """
    gateway = address.rstrip("/")
    token = _signed_in(gateway, {"email": email, "password": password})
    [project, *_] = _call(f"{gateway}/api/v1/projects", token=token)["items"]
    path = f"{gateway}/api/v1/projects/{project['id']}"
    try:
        _call(f"{path}/metrics", _DEFINITION, token)
    except CanaryError as error:
        if error.status != HTTPStatus.CONFLICT:  # it is there already
            raise
    return str(_call(f"{path}/keys", _KEY, token)["key"])


def _signed_in(gateway: str, account: dict[str, str]) -> str:
    """An access token, of a new account where there is none."""
    try:
        answer = _call(f"{gateway}/api/v1/auth/signup", {**account, "tenantName": "Canary"})
    except CanaryError as error:
        if error.status != HTTPStatus.CONFLICT:
            raise
        answer = _call(f"{gateway}/api/v1/auth/signin", account)
    return str(answer["accessToken"])


def _call(url: str, body: dict[str, Any] | None = None, token: str = "") -> Any:
    """The answer's JSON; POST where there is a body."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, headers)  # noqa: S310 - the operator's address
        with DIRECTLY.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        said = error.read(500).decode(errors="replace")
        raise CanaryError(f"{url} answered {error.code}: {said}", error.code) from error
    except (OSError, ValueError) as error:
        raise CanaryError(f"{url}: {getattr(error, 'reason', error)}") from error
