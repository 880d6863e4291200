"""Generated clients: for download, and as a script that a page loads."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal

from aiohttp import web

from chassis.errors import PulsegateError
from chassis.ids import is_uuid
from chassis.principals import Principal
from contracts.pulsegate.codegen.v1 import codegen_pb2 as pb
from services.gateway import errors
from services.gateway.authentication import Authentication
from services.gateway.clients.accounts import Accounts
from services.gateway.http_api.bodies import Asking, has_it, path_id
from services.gateway.http_api.shapes import Asked, Id
from services.gateway.kept_reads import SCRIPT, KeptReads, Source, media_type
from services.gateway.routes import CALLER, Audience, Header, Media, Operation, Route
from services.gateway.shares import HOLDERS

LanguageName = Literal["javascript", "python"]

_LANGUAGES: Mapping[LanguageName, "pb.Language.ValueType"] = {
    "javascript": pb.LANGUAGE_JAVASCRIPT,
    "python": pb.LANGUAGE_PYTHON,
}

#: In an outage a browser goes on with the script that it has for a day, a cache in between for as long as queues last.
_FRESH = "public, max-age=300, stale-while-revalidate=86400, stale-if-error=604800"
_FOR_EVER = "public, max-age=31536000, immutable"
#: For so long who has a script waits while codegen is told that it is in use; where reads are kept that goes on
#: without them.
_NOTING_SECONDS = 0.25
_FILE_NAME = re.compile(r"[A-Za-z0-9._-]+")

_SCRIPT = Media((SCRIPT,))
#: Of a key in a path, whose errors count towards the address.
_SCRIPT_ERRORS = (401, 403, 404, 429, 503, 504)
_KNOWN = Header("If-None-Match", "The ETag of the source that the client has.")


class WantedClient(Asked):
    language: LanguageName
    #: The publishable key to embed.
    key_id: Id | None = None
    minify: bool = True


class GeneratedCodeRoutes:
    """`/api/v1/projects/{projectId}/client` and `/sdk/v1/…`"""

    title = "Generated code"

    def __init__(self, kept: KeptReads, accounts: Accounts, authentication: Authentication, *, endpoint: str) -> None:
        self._kept = kept
        self._accounts = accounts
        self._authentication = authentication
        self._endpoint = endpoint

    def routes(self) -> Sequence[Route]:
        return [
            Route(
                "GET",
                "/api/v1/projects/{projectId}/client",
                Asking(WantedClient, self.download),
                Audience.EXPENSIVE,
                Operation(
                    "Generate a client",
                    {200: Media((SCRIPT, "text/x-python")), 304: None},
                    headers=(_KNOWN,),
                    answer_headers=("ETag", "Content-Disposition"),
                ),
            ),
            Route(
                "GET",
                "/sdk/v1/{publishableKey:[^./]+}.js",
                self.script,
                Audience.OPEN,
                Operation(
                    "Load the client of a key",
                    {200: _SCRIPT, 304: None},
                    "For a script tag.",
                    headers=(_KNOWN,),
                    answer_headers=("ETag", "Link", "X-Content-Integrity"),
                    errors=_SCRIPT_ERRORS,
                ),
            ),
            Route(
                "GET",
                "/sdk/v1/{publishableKey:[^./]+}.{hash:[0-9a-f]{64}}.js",
                self.pinned_script,
                Audience.OPEN,
                Operation(
                    "Load one client of a key",
                    {200: _SCRIPT, 304: None},
                    "The same bytes for ever.",
                    headers=(_KNOWN,),
                    answer_headers=("ETag", "X-Content-Integrity"),
                    errors=_SCRIPT_ERRORS,
                ),
            ),
        ]

    async def download(self, request: web.Request, wanted: WantedClient) -> web.Response:
        """The client's source, with a key embedded where one is named. It shows every definition of the project."""
        request[CALLER].principal.require("config:read")
        key = ""
        if wanted.key_id:
            if not is_uuid(wanted.key_id):
                raise errors.not_found()
            key = await self._accounts.publishable_key(path_id(request, "projectId"), wanted.key_id)
        made = await self._kept.client(
            request[CALLER].principal,
            pb.GenerateClientRequest(
                language=_LANGUAGES[wanted.language], endpoint=self._endpoint, publishable_key=key, minify=wanted.minify
            ),
        )
        headers = {"Cache-Control": "private, no-cache"}
        if _FILE_NAME.fullmatch(made.file_name):
            headers["Content-Disposition"] = f'attachment; filename="{made.file_name}"'
        return _answer(request, made, headers)

    async def script(self, request: web.Request) -> web.Response:
        """The newest client of a publishable key, for a script tag."""
        key, reader = await self._key_of(request)
        made = await self._generate(reader, key)
        headers = {
            "X-Content-Integrity": made.integrity,
            "Cache-Control": _FRESH,
            "Link": f'</sdk/v1/{key}.{made.sha256}.js>; rel="canonical"',
        }
        return _answer(request, made, headers)

    async def pinned_script(self, request: web.Request) -> web.Response:
        """The same bytes for ever, or 404. Who has them is told so whether or not they are still here."""
        _, reader = await self._key_of(request)
        sha256 = request.match_info["hash"]
        headers = {"ETag": _etag(sha256), "Cache-Control": _FOR_EVER}
        if has_it(request, headers["ETag"]):
            with suppress(PulsegateError, TimeoutError):  # whatever comes of that, the client has them
                async with asyncio.timeout(_NOTING_SECONDS):
                    await self._kept.note_use(reader, sha256)
            return web.Response(status=304, headers=headers)
        kept = await self._kept.script(reader, sha256)
        return _answer(request, kept, {**headers, "X-Content-Integrity": kept.integrity})

    async def _key_of(self, request: web.Request) -> tuple[str, Principal]:
        key = request.match_info["publishableKey"]
        reader = (await self._authentication.of_key(request, key)).principal
        # Anybody who has seen a page has its key: what they hold is taken from nobody's own reads.
        HOLDERS.set((f"scripts of {reader.tenant_id}",))
        return key, reader

    async def _generate(self, reader: Principal, key: str) -> Source:
        return await self._kept.client(
            reader,
            pb.GenerateClientRequest(
                language=pb.LANGUAGE_JAVASCRIPT,
                endpoint=self._endpoint,
                publishable_key=key,
                minify=True,
                packaging=pb.PACKAGING_SCRIPT,
            ),
        )


def _etag(sha256: str) -> str:
    return f'"{sha256}"'


def _answer(request: web.Request, source: Source, headers: Mapping[str, str]) -> web.Response:
    """The source, or 304 where the client has it."""
    told = {"ETag": _etag(source.sha256), **headers}
    if has_it(request, told["ETag"]):
        return web.Response(status=304, headers=told)
    return web.Response(
        body=source.content, content_type=media_type(source.content_type), charset="utf-8", headers=told
    )
