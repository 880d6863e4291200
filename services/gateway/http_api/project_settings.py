"""What the owners and admins of a project decide about it."""

from collections.abc import Sequence

import msgspec
from aiohttp import web

from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from services.gateway.clients import Definitions
from services.gateway.http_api.bodies import answer, parse
from services.gateway.routes import Door, Route


class Settings(msgspec.Struct):
    auto_definition: bool = msgspec.field(name="autoDefinition")


class ProjectSettingsRoutes:
    """`/api/v1/projects/{projectId}/settings`"""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def routes(self) -> Sequence[Route]:
        path = "/api/v1/projects/{projectId}/settings"
        return [Route("GET", path, self.get, Door.READ), Route("PUT", path, self.replace, Door.WRITE)]

    async def get(self, _request: web.Request) -> web.Response:
        return _answer(await self._definitions.settings())

    async def replace(self, request: web.Request) -> web.Response:
        wanted = await parse(request, Settings)
        return _answer(
            await self._definitions.change_settings(pb.ProjectSettings(auto_definition=wanted.auto_definition))
        )


def _answer(settings: pb.ProjectSettings) -> web.Response:
    return answer({"autoDefinition": settings.auto_definition})
