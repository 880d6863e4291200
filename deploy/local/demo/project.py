"""The demo's tenant, its definitions and its keys: made once, found again on the same data."""

import json
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from deploy.local.demo.api import Api, ApiError
from deploy.local.secrets import SecretFolder, write_private

EMAIL = "demo@pulsegate.example"

_SOURCE = {"name": "source", "required": True, "values": ["server", "browser"]}
DEFINITIONS: tuple[dict[str, Any], ...] = (
    {
        "name": "demo_orders_total",
        "type": "counter",
        "help": "Orders that the demo's shop has taken.",
        "labels": [_SOURCE, {"name": "plan", "required": True, "values": ["free", "pro"]}],
    },
    {
        "name": "demo_open_carts",
        "type": "gauge",
        "help": "Carts with something in them.",
        "labels": [_SOURCE],
    },
    {
        "name": "demo_checkout_duration_seconds",
        "type": "histogram",
        "unit": "seconds",
        "help": "How long a checkout took.",
        "labels": [_SOURCE],
        "buckets": [0.125, 0.25, 0.5, 1, 2.5, 5],
    },
)


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The project's API keys; secrets are shown once, so they are kept in the data folder."""

    #: writes from the browser, is named when its client is generated
    publishable_id: str
    #: writes from the server, and queries
    secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class DemoProject:
    """The demo's project and who may do what with it."""

    id: str
    password: str = field(repr=False)
    #: as the demo's owner
    person: Api
    #: as a program with the secret key
    program: Api
    keys: Keys


async def demo_project(api: Api, secrets: SecretFolder, folder: Path) -> DemoProject:
    """Signs up, or in where the demo has been here before. Raises ApiError."""
    password = secrets.password("demo_password")
    person = await _signed_in(api, password)
    project_id = (await person.get("/api/v1/projects"))["items"][0]["id"]
    for definition in DEFINITIONS:
        await _define(person, project_id, definition)
    keys = await _keys(person, project_id, folder / "keys.json")
    return DemoProject(id=project_id, password=password, person=person, program=api.with_token(keys.secret), keys=keys)


async def _signed_in(api: Api, password: str) -> Api:
    account = {"email": EMAIL, "password": password}
    try:
        signed = await api.post("/api/v1/auth/signup", {**account, "tenantName": "Demo"})
    except ApiError as error:
        if error.status != HTTPStatus.CONFLICT:
            raise
        signed = await api.post("/api/v1/auth/signin", account)
    return api.with_token(signed["accessToken"])


async def _define(person: Api, project_id: str, definition: dict[str, Any]) -> None:
    try:
        await person.post(f"/api/v1/projects/{project_id}/metrics", definition)
    except ApiError as error:
        if error.status != HTTPStatus.CONFLICT:  # it is there already
            raise


async def _keys(person: Api, project_id: str, kept: Path) -> Keys:
    if (keys := _read_keys(kept)) is not None:
        return keys
    path = f"/api/v1/projects/{project_id}/keys"
    publishable = await person.post(path, {"name": "Demo, browser", "kind": "publishable", "allowedOrigins": ["*"]})
    secret = await person.post(
        path, {"name": "Demo, server", "kind": "secret", "scopes": ["ingest:write", "query:read"]}
    )
    keys = Keys(publishable_id=publishable["id"], secret=secret["key"])
    write_private(kept, json.dumps(asdict(keys)))
    return keys


def _read_keys(kept: Path) -> Keys | None:
    return Keys(**json.loads(kept.read_text(encoding="utf-8"))) if kept.exists() else None
