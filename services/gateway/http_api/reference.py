"""What the readers of the API have: its OpenAPI document, and the same as a page."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from aiohttp import web

from services.gateway.http_api.bodies import has_it
from services.gateway.http_api.openapi import Resource, document
from services.gateway.http_api.pages import content_security_policy
from services.gateway.routes import Audience, Header, Media, Operation, Route

_METHODS = ("get", "post", "put", "patch", "delete")
_KNOWN = Header("If-None-Match", "The ETag of what the client has.")


class ReferenceRoutes:
    """`/api/v1/openapi.json` and `/docs`"""

    title = "This gateway"

    def __init__(self, resources: Sequence[Resource], *, endpoint: str) -> None:
        described = document([*resources, self], server=endpoint)
        page = _page(described)
        self._policy = content_security_policy(page)
        self._document, self._page = msgspec.json.encode(described), page.encode()

    def routes(self) -> Sequence[Route]:
        return [
            Route("GET", "/api/v1/openapi.json", self.document, Audience.OPEN, _operation("This document", _JSON)),
            Route("GET", "/docs", self.page, Audience.OPEN, _operation("This document as a page", _HTML)),
        ]

    async def document(self, request: web.Request) -> web.Response:
        return _answer(request, self._document, _JSON, {"Access-Control-Allow-Origin": "*"})

    async def page(self, request: web.Request) -> web.Response:
        return _answer(request, self._page, _HTML, {"Content-Security-Policy": self._policy})


_JSON, _HTML = "application/json", "text/html"


def _operation(summary: str, media_type: str) -> Operation:
    return Operation(
        summary,
        {200: Media((media_type,)), 304: None},
        headers=(_KNOWN,),
        answer_headers=("ETag",),
        errors=(503,),
    )


def _answer(request: web.Request, body: bytes, media_type: str, headers: Mapping[str, str]) -> web.Response:
    """The body, or 304 where the client has it."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    told = {"ETag": etag, "Cache-Control": "no-cache", **headers}
    if has_it(request, etag):
        return web.Response(status=304, headers=told)
    return web.Response(body=body, content_type=media_type, charset="utf-8", headers=told)


def _page(described: Mapping[str, Any]) -> str:
    """One page without scripts and without anything from elsewhere."""
    template = Path(__file__).with_name("reference.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.Undefined)
    operations = [
        {"method": method.upper(), "path": path, **each[method]}
        for path, each in described["paths"].items()
        for method in _METHODS
        if method in each
    ]
    return environment.from_string(template).render(document=described, operations=operations)
