"""Requests that the API takes, made up from its OpenAPI document: one for each operation."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from chassis.ids import uuid7
from tests.e2e.api import Answer, Api

Json = dict[str, Any]

PROVIDER: Json = {"name": "made up", "oidc": {"issuer": "https://login.example.com", "clientId": "pulsegate"}}

#: Where the document's schema alone does not make a body that has a meaning; by the schema's name, or the operation's.
_BODIES: Mapping[str, Any] = {
    "NewMetric": {"name": "first_total", "type": "counter", "help": "What it counts."},
    "NewKey": {"name": "made up", "kind": "secret", "scopes": ["ingest:write"]},
    "KeyChanges": {"name": "made up"},
    "NewSettings": {"autoDefinition": False},
    "Batch": {"metrics": [{"name": "first_total", "value": 1}]},
    "NewRole": {"role": "viewer"},
    "NewIdentityProvider": PROVIDER,
    "ScimPatch": {"Operations": [{"op": "replace", "path": "active", "value": False}]},
    "TenantChange": {"suspended": False},
    "Rotation": {"graceSeconds": 60},
    "sendStatsDLines": b"first_total:1|c\n",
    "sendOTLPMetrics": {"resourceMetrics": []},
    "sendByRemoteWrite": b"\x00",  # an empty request, in snappy
    "replaceAGroup": b"first_total 1\n",
    "pushToAGroup": b"first_total 1\n",
    "replaceAGroupOfAJobInBase64url": b"first_total 1\n",
    "pushToAGroupOfAJobInBase64url": b"first_total 1\n",
    "reportLeakedKeys": [{"token": "none", "type": "pulsegate", "url": ""}],
}
#: Parameters whose values must have a meaning.
_VALUES: Mapping[str, str] = {
    "query": "first_total",
    "match[]": "first_total",
    "time": "1800000000",
    "start": "1800000000",
    "end": "1800000060",
    "step": "15",
    "language": "python",
    "name": "project_id",
    "group": "bWFkZSB1cA==",
    "from": "2026-01-01T00:00:00Z",
    "to": "2026-01-01T01:00:00Z",
    "If-Match": '"1"',
}


@dataclass(frozen=True, kw_only=True)
class Made:
    """One request, without a credential."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes | None = None

    async def sent(self, api: Api, credential: str) -> Answer:
        """Publishable keys go where they belong."""
        headers = dict(self.headers)
        if credential.startswith("pk_"):
            headers["X-API-Key"], credential = credential, ""
        return await api.call(self.method, self.path, credential=credential, headers=headers, data=self.data)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of the document."""

    name: str
    method: str
    template: str
    described: Json
    schemas: Json

    @property
    def is_open(self) -> bool:
        """Whether it takes no credential."""
        return not self.described["security"]

    @property
    def ids(self) -> list[str]:
        """Names of all that are ids in its path, its parameters and its body."""
        _, schema = self._body_schema()
        members = schema.get("properties", {})
        return [
            *(one["name"] for one in self.described.get("parameters", ()) if _is_id(one["schema"])),
            *(name for name, member in members.items() if _is_id(member)),
        ]

    @property
    def ids_in_path(self) -> list[str]:
        parameters = self.described.get("parameters", ())
        return [one["name"] for one in parameters if one["in"] == "path" and _is_id(one["schema"])]

    def made(self, ids: Mapping[str, str], body: Mapping[str, object] | None = None) -> Made:
        """The request about these ids; `body`: members that its body has instead of made up ones."""
        parameters = self.described.get("parameters", ())
        path, query, headers = self.template, {}, {}
        for one in parameters:
            name = one["name"]
            value = ids.get(name) or _VALUES.get(name) or str(_example(one["schema"], self.schemas))
            if one["in"] == "path":
                path = path.replace("{" + name + "}", value)
            elif one["in"] == "query" and (one["required"] or name in ids or name in ("match[]", "query")):
                query[name] = value
            elif one["in"] == "header" and one["required"]:
                headers[name] = value
        media_type, data = self._body(ids, body or {})
        if media_type:
            headers["Content-Type"] = media_type
        if self.name == "sendByRemoteWrite":
            headers["Content-Encoding"] = "snappy"
        return Made(
            method=self.method, path=path + ("?" + urlencode(query) if query else ""), headers=headers, data=data
        )

    def _body_schema(self) -> tuple[str, Json]:
        content = self.described.get("requestBody", {}).get("content", {})
        media_type = next(iter(content), "")
        return media_type, _resolved(content.get(media_type, {}).get("schema", {}), self.schemas)

    def _body(self, ids: Mapping[str, str], instead: Mapping[str, object]) -> tuple[str, bytes | None]:
        media_type, schema = self._body_schema()
        if not media_type:
            return "", None
        known = _BODIES.get(schema.get("title", ""), _BODIES.get(self.name))
        body = known if known is not None else _example(schema, self.schemas)
        if isinstance(body, bytes):
            return media_type, body
        if isinstance(body, dict):
            named = {name: ids[name] for name in schema.get("properties", {}) if name in ids}
            body = {**body, **named, **instead}
        if media_type == "application/x-www-form-urlencoded":
            return media_type, urlencode({name: _VALUES.get(name, value) for name, value in body.items()}).encode()
        return media_type, json.dumps(body).encode()


def operations(document: Json) -> Iterator[Operation]:
    """Everything that the document describes."""
    for template, methods in document["paths"].items():
        for method, described in methods.items():
            yield Operation(
                name=described["operationId"],
                method=method.upper(),
                template=template,
                described=described,
                schemas=document["components"]["schemas"],
            )


def _resolved(schema: Json, schemas: Json) -> Json:
    found: Json = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _is_id(schema: Json) -> bool:
    return any(one.get("format") == "uuid" for one in (schema, *schema.get("anyOf", ())))


def _example(schema: Json, schemas: Json) -> Any:
    """The smallest value that the schema allows."""
    schema = _resolved(schema, schemas)
    if "enum" in schema:
        return schema["enum"][-1]
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]()
    kind = schema.get("type", "string")
    if kind == "object":
        members = schema.get("properties", {})
        return {name: _example(members[name], schemas) for name in schema.get("required", ())}
    if kind == "array":
        return [_example(schema["items"], schemas)] * schema.get("minItems", 0)
    return {"integer": schema.get("minimum", 0), "boolean": False}.get(kind, "made up")


_FORMATS: Mapping[str, Callable[[], str]] = {
    "uuid": lambda: str(uuid7()),
    "email": lambda: f"{uuid7()}@example.com",
    "date-time": lambda: "2030-01-01T00:00:00Z",
}
