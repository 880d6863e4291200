"""Generated clients: for download, and as a script that a page loads."""

import base64
import hashlib
import re
from collections.abc import Sequence

from aiohttp import web

from chassis.errors import Invalid
from chassis.ids import is_uuid
from contracts.pulsegate.codegen.v1 import codegen_pb2 as pb
from services.gateway import errors
from services.gateway.authentication import Authentication
from services.gateway.clients import Accounts, Generator
from services.gateway.http_api.bodies import path_id
from services.gateway.routes import CALLER, Door, Route

_LANGUAGES = {"javascript": pb.LANGUAGE_JAVASCRIPT, "python": pb.LANGUAGE_PYTHON}

_FRESH = "public, max-age=300"
_FOR_EVER = "public, max-age=31536000, immutable"
_FILE_NAME = re.compile(r"[A-Za-z0-9._-]+")


class GeneratedCodeRoutes:
    """`/api/v1/projects/{projectId}/client` and `/sdk/v1/…`"""

    def __init__(
        self, generator: Generator, accounts: Accounts, authentication: Authentication, *, endpoint: str
    ) -> None:
        self._generator = generator
        self._accounts = accounts
        self._authentication = authentication
        self._endpoint = endpoint

    def routes(self) -> Sequence[Route]:
        return [
            Route("GET", "/api/v1/projects/{projectId}/client", self.download, Door.EXPENSIVE),
            Route("GET", "/sdk/v1/{publishableKey:[^./]+}.js", self.script, Door.OPEN),
            Route("GET", "/sdk/v1/{publishableKey:[^./]+}.{hash:[0-9a-f]{64}}.js", self.pinned_script, Door.OPEN),
        ]

    async def download(self, request: web.Request) -> web.Response:
        """The client's source, with a key embedded where one is named. It shows every definition of the project."""
        request[CALLER].principal.require("config:read")
        language, minify, key_id = _options(request)
        key = ""
        if key_id:
            key = await self._accounts.publishable_key(path_id(request, "projectId"), key_id)
        made = await self._generator.client(
            pb.GenerateClientRequest(
                language=_LANGUAGES[language], endpoint=self._endpoint, publishable_key=key, minify=minify
            )
        )
        headers = {"ETag": f'"{made.sha256}"', "Cache-Control": "private, no-cache"}
        if _FILE_NAME.fullmatch(made.file_name):
            headers["Content-Disposition"] = f'attachment; filename="{made.file_name}"'
        return _source(request, made.content, made.content_type, headers)

    async def script(self, request: web.Request) -> web.Response:
        """The newest client of a publishable key, for a script tag."""
        key = await self._key_of(request)
        made = await self._generate(key)
        headers = {
            **_shared(made.content, made.sha256),
            "Cache-Control": _FRESH,
            "Link": f'</sdk/v1/{key}.{made.sha256}.js>; rel="canonical"',
        }
        return _source(request, made.content, made.content_type, headers)

    async def pinned_script(self, request: web.Request) -> web.Response:
        """The same bytes for ever, or 404."""
        await self._key_of(request)
        sha256 = request.match_info["hash"]
        kept = await self._generator.artifact(sha256)
        headers = {**_shared(kept.content, sha256), "Cache-Control": _FOR_EVER}
        return _source(request, kept.content, kept.content_type, headers)

    async def _key_of(self, request: web.Request) -> str:
        key = request.match_info["publishableKey"]
        await self._authentication.of_key(request, key)
        return key

    async def _generate(self, key: str) -> pb.GenerateClientResponse:
        return await self._generator.client(
            pb.GenerateClientRequest(
                language=pb.LANGUAGE_JAVASCRIPT,
                endpoint=self._endpoint,
                publishable_key=key,
                minify=True,
                packaging=pb.PACKAGING_SCRIPT,
            )
        )


def _options(request: web.Request) -> tuple[str, bool, str]:
    """Language, whether to minify, and the id of the key to embed ("" for none)."""
    language = request.query.get("language", "")
    minify = request.query.get("minify", "true")
    key_id = request.query.get("keyId", "")
    faults = {}
    if language not in _LANGUAGES:
        faults["language"] = f"must be one of {', '.join(_LANGUAGES)}"
    if minify not in ("true", "false"):
        faults["minify"] = "must be true or false"
    if faults:
        raise Invalid.fields(faults)
    if key_id and not is_uuid(key_id):
        raise errors.not_found()
    return language, minify == "true", key_id


def _shared(content: bytes, sha256: str) -> dict[str, str]:
    integrity = base64.b64encode(hashlib.sha384(content).digest()).decode("ascii")
    return {"ETag": f'"{sha256}"', "X-Content-Integrity": f"sha384-{integrity}"}


def _source(request: web.Request, content: bytes, content_type: str, headers: dict[str, str]) -> web.Response:
    """The source, or 304 where the client has it."""
    if _has_it(request, headers["ETag"]):
        return web.Response(status=304, headers=headers)
    media_type = content_type.partition(";")[0].strip()
    return web.Response(body=content, content_type=media_type, charset="utf-8", headers=headers)


def _has_it(request: web.Request, etag: str) -> bool:
    offered = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    return "*" in offered or etag in offered
