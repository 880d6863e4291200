"""What the canary needs of an installation: a tenant of its own, its metric's definition, and a key that opens no more.

It asks for them at the public door, as a person would.
"""

import json
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, TypeVar

import msgspec

from pulsegate.observation import DIRECTLY, decoded

_TIMEOUT_SECONDS = 30.0

#: What `services/canary` sends.
_DEFINITION = {
    "name": "pulsegate_canary_units_total",
    "type": "counter",
    "help": "What the canary has sent.",
    "labels": [{"name": "run", "required": True}],
}
_KEY = {"name": "canary", "kind": "secret", "scopes": ["ingest:write", "query:read"]}


T = TypeVar("T")


class _Session(msgspec.Struct, rename="camel"):
    access_token: str


class _Project(msgspec.Struct):
    id: str


class _Projects(msgspec.Struct):
    items: list[_Project]


class _Key(msgspec.Struct):
    key: str


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
    projects = _call(f"{gateway}/api/v1/projects", _Projects, token=token).items
    if not projects:
        raise CanaryError("the account has no project: give it one")
    path = f"{gateway}/api/v1/projects/{projects[0].id}"
    try:
        _call(f"{path}/metrics", dict, _DEFINITION, token)
    except CanaryError as error:
        if error.status != HTTPStatus.CONFLICT:  # it is there already
            raise
    return _call(f"{path}/keys", _Key, _KEY, token).key


def _signed_in(gateway: str, account: dict[str, str]) -> str:
    """An access token, of a new account where there is none."""
    try:
        return _call(f"{gateway}/api/v1/auth/signup", _Session, {**account, "tenantName": "Canary"}).access_token
    except CanaryError as error:
        if error.status != HTTPStatus.CONFLICT:
            raise
    return _call(f"{gateway}/api/v1/auth/signin", _Session, account).access_token


def _call(url: str, kind: type[T], body: dict[str, Any] | None = None, token: str = "") -> T:
    """What the answer says; POST where there is a body."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, headers)  # noqa: S310 - the operator's address
        with DIRECTLY.open(request, timeout=_TIMEOUT_SECONDS) as response:
            answer = decoded(response.read(), kind)
    except urllib.error.HTTPError as error:
        said = error.read(500).decode(errors="replace")
        raise CanaryError(f"{url} answered {error.code}: {said}", error.code) from error
    except (OSError, HTTPException, ValueError) as error:
        raise CanaryError(f"{url}: {getattr(error, 'reason', error)}") from error
    if answer is None:
        raise CanaryError(f"{url} did not answer as a gateway does")
    return answer
