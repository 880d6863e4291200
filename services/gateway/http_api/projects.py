"""Projects of the caller's tenants."""

from collections.abc import Sequence

from aiohttp import web

from chassis.errors import Invalid
from chassis.ids import is_uuid
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from services.gateway.clients.accounts import Accounts
from services.gateway.http_api.bodies import Asking, Page, Taking, answer, moment, no_content, path_id
from services.gateway.http_api.shapes import Asked, Id, Moment, Name, Told
from services.gateway.routes import Audience, Operation, Route


class NewProject(Asked):
    name: Name
    #: Needed by those who belong to several.
    tenant_id: Id | None = None


class ProjectName(Asked):
    name: Name


class ProjectsPage(Page):
    #: Left out: those of all tenants of the caller.
    tenant_id: Id | None = None


class Project(Told):
    id: Id
    tenant_id: Id
    name: str
    created_at: Moment


class Projects(Told):
    items: list[Project]
    next_page_token: str


class ProjectRoutes:
    """`/api/v1/projects`"""

    title = "Projects"

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def routes(self) -> Sequence[Route]:
        projects, project = "/api/v1/projects", "/api/v1/projects/{projectId}"
        return [
            Route(
                "GET",
                projects,
                Asking(ProjectsPage, self.list),
                Audience.READ,
                Operation("List projects", {200: Projects}),
            ),
            Route(
                "POST",
                projects,
                Taking(NewProject, self.create),
                Audience.WRITE,
                Operation("Make a project", {201: Project}, answer_headers=("Location",), errors=(404, 409)),
            ),
            Route("GET", project, self.get, Audience.READ, Operation("Show a project", {200: Project})),
            Route(
                "PATCH",
                project,
                Taking(ProjectName, self.rename),
                Audience.WRITE,
                Operation("Rename a project", {200: Project}, errors=(409,)),
            ),
            Route(
                "DELETE",
                project,
                self.delete,
                Audience.WRITE,
                Operation(
                    "Delete a project",
                    {204: None},
                    "Its keys stop working at once, and its definitions are deleted within minutes.",
                    errors=(409,),
                ),
            ),
        ]

    async def list(self, _request: web.Request, wanted: ProjectsPage) -> web.Response:
        tenant_id = _tenant_id(wanted.tenant_id)
        found = await self._accounts.projects(tenant_id, wanted.page_size, wanted.page_token)
        return answer(Projects([_render(project) for project in found.projects], found.next_page_token))

    async def create(self, _request: web.Request, new: NewProject) -> web.Response:
        project = await self._accounts.create_project(_tenant_id(new.tenant_id), new.name)
        return answer(_render(project), status=201, headers={"Location": f"/api/v1/projects/{project.id}"})

    async def get(self, request: web.Request) -> web.Response:
        return answer(_render(await self._accounts.project(path_id(request, "projectId"))))

    async def rename(self, request: web.Request, new: ProjectName) -> web.Response:
        return answer(_render(await self._accounts.rename_project(path_id(request, "projectId"), new.name)))

    async def delete(self, request: web.Request) -> web.Response:
        await self._accounts.delete_project(path_id(request, "projectId"))
        return no_content()


def _tenant_id(text: str | None) -> str:
    if text and not is_uuid(text):
        raise Invalid.fields({"tenantId": "must be the id of a tenant"})
    return text or ""


def _render(project: pb.Project) -> Project:
    return Project(id=project.id, tenant_id=project.tenant_id, name=project.name, created_at=moment(project.created_at))
