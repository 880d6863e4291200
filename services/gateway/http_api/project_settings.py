"""What the owners and admins of a project decide about it."""

from collections.abc import Sequence

from aiohttp import web

from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from services.gateway.clients.definitions import Definitions
from services.gateway.http_api.bodies import Taking, answer
from services.gateway.http_api.shapes import Asked, Told
from services.gateway.routes import Audience, Operation, Route


class NewSettings(Asked):
    #: Whether names that nobody has defined become provisional definitions where a secret key sends them.
    auto_definition: bool


class ProjectSettings(Told):
    auto_definition: bool


class ProjectSettingsRoutes:
    """`/api/v1/projects/{projectId}/settings`"""

    title = "Projects"

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def routes(self) -> Sequence[Route]:
        path = "/api/v1/projects/{projectId}/settings"
        return [
            Route("GET", path, self.get, Audience.READ, Operation("Show a project's settings", {200: ProjectSettings})),
            Route(
                "PUT",
                path,
                Taking(NewSettings, self.replace),
                Audience.WRITE,
                Operation("Change a project's settings", {200: ProjectSettings}),
            ),
        ]

    async def get(self, _request: web.Request) -> web.Response:
        return _answer(await self._definitions.settings())

    async def replace(self, _request: web.Request, wanted: NewSettings) -> web.Response:
        return _answer(
            await self._definitions.change_settings(pb.ProjectSettings(auto_definition=wanted.auto_definition))
        )


def _answer(settings: pb.ProjectSettings) -> web.Response:
    return answer(ProjectSettings(settings.auto_definition))
