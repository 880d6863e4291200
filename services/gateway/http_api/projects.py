"""Projects of the caller's tenants."""

from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from chassis.errors import Invalid
from chassis.ids import is_uuid
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from services.gateway.clients import Accounts
from services.gateway.http_api.bodies import answer, listed, moment, no_content, page, parse, path_id
from services.gateway.routes import Door, Route


class NewProject(msgspec.Struct):
    name: str
    tenant_id: str = msgspec.field(name="tenantId", default="")


class ProjectName(msgspec.Struct):
    name: str


class ProjectRoutes:
    """`/api/v1/projects`"""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def routes(self) -> Sequence[Route]:
        return [
            Route("GET", "/api/v1/projects", self.list, Door.READ),
            Route("POST", "/api/v1/projects", self.create, Door.WRITE),
            Route("GET", "/api/v1/projects/{projectId}", self.get, Door.READ),
            Route("PATCH", "/api/v1/projects/{projectId}", self.rename, Door.WRITE),
            Route("DELETE", "/api/v1/projects/{projectId}", self.delete, Door.WRITE),
        ]

    async def list(self, request: web.Request) -> web.Response:
        tenant_id = _tenant_id(request.query.get("tenantId", ""))
        found = await self._accounts.projects(tenant_id, *page(request))
        return listed([_render(project) for project in found.projects], found.next_page_token)

    async def create(self, request: web.Request) -> web.Response:
        body = await parse(request, NewProject)
        project = await self._accounts.create_project(_tenant_id(body.tenant_id), body.name)
        return answer(_render(project), status=201, headers={"Location": f"/api/v1/projects/{project.id}"})

    async def get(self, request: web.Request) -> web.Response:
        return answer(_render(await self._accounts.project(path_id(request, "projectId"))))

    async def rename(self, request: web.Request) -> web.Response:
        body = await parse(request, ProjectName)
        return answer(_render(await self._accounts.rename_project(path_id(request, "projectId"), body.name)))

    async def delete(self, request: web.Request) -> web.Response:
        await self._accounts.delete_project(path_id(request, "projectId"))
        return no_content()


def _tenant_id(text: str) -> str:
    if text and not is_uuid(text):
        raise Invalid.fields({"tenantId": "must be the id of a tenant"})
    return text


def _render(project: pb.Project) -> dict[str, Any]:
    return {
        "id": project.id,
        "tenantId": project.tenant_id,
        "name": project.name,
        "createdAt": moment(project.created_at),
    }
