"""Answers of the gateway compared with the OpenAPI document that it serves itself."""

import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema
from referencing import Registry
from referencing.jsonschema import DRAFT202012

Json = dict[str, Any]
_BASE = "urn:pulsegate"


class Conformance:
    """What the document says about answers. Stricter than for clients: an object has no members but those it lists."""

    def __init__(self, document: Json) -> None:
        self.document = document
        closed = json.loads(json.dumps(document))
        for schema in closed["components"]["schemas"].values():
            schema.setdefault("additionalProperties", False)
        self._registry: Registry[Any] = Registry().with_resource(_BASE, DRAFT202012.create_resource(closed))
        self._paths = [(_pattern(path), path) for path in document["paths"]]

    def check(self, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Raises AssertionError where the document says otherwise. Of paths that it does not have nothing is said."""
        for pattern, template in self._paths:
            operation = self.document["paths"][template].get(method.lower())
            if operation is not None and pattern.fullmatch(path.partition("?")[0]):
                return self._check(f"{method} {template}", operation, status, headers, body)
        return None

    def _check(self, what: str, operation: Json, status: int, headers: Mapping[str, str], body: bytes) -> None:
        assert str(status) in operation["responses"], f"{what} answers {status}, which is not described: {body[:300]!r}"
        described = operation["responses"][str(status)]
        # An answer may do without the headers that only some answers of its status have.
        assert "X-Correlation-Id" in headers, f"{what}: no correlation id"
        content = described.get("content")
        if content is None:
            assert not body, f"{what} answers {status} with a body"
            return
        media_type = headers["Content-Type"].partition(";")[0]
        assert media_type in content, f"{what} answers {status} as {media_type}"
        if media_type in ("application/json", "application/scim+json") and "schema" in content[media_type]:
            self._compare(f"{what} {status}", json.loads(body), content[media_type]["schema"])

    def _compare(self, what: str, value: Any, schema: Json) -> None:
        whole = json.loads(json.dumps(schema).replace('"#/components', f'"{_BASE}#/components'))
        validator = jsonschema.Draft202012Validator(
            whole, registry=self._registry, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        )
        faults = [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(value)]
        assert not faults, f"{what}: {faults}"


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile("".join(_segment(part) if index % 2 else re.escape(part) for index, part in enumerate(parts)))


def _segment(name: str) -> str:
    return ".+" if name == "group" else "[^/]+"
