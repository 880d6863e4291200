# ruff: noqa: N802 - the contract names the methods
"""AccountService: what the gateway's management routes call."""

from typing import Any

import grpc

from chassis.principals import current
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from contracts.pulsegate.auth.v1 import accounts_pb2_grpc
from services.auth.domain import KeyId, PageRequest, ProjectId, TenantId, UserId
from services.auth.grpc_api import messages
from services.auth.operations.accounts import Accounts
from services.auth.operations.keys import Keys
from services.auth.operations.leaks import LeakReport, Leaks
from services.auth.operations.members import Members
from services.auth.operations.projects import Projects
from services.auth.operations.sessions import Sessions

Call = grpc.aio.ServicerContext[Any, Any]


class AccountServicer(accounts_pb2_grpc.AccountServiceServicer):
    """One method a call; the principal comes with the call (`chassis.principals`)."""

    def __init__(
        self, accounts: Accounts, sessions: Sessions, projects: Projects, keys: Keys, leaks: Leaks, members: Members
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._projects = projects
        self._keys = keys
        self._leaks = leaks
        self._members = members

    async def SignUp(self, request: pb.SignUpRequest, _call: Call) -> pb.SignUpResponse:
        device = messages.read_device(request.device)
        made = await self._accounts.sign_up(request.email, request.password, request.tenant_name, device)
        return pb.SignUpResponse(
            user=messages.user(made.user),
            tenant=messages.tenant(made.tenant),
            project=messages.project(made.project),
            session=messages.session(made.tokens),
        )

    async def SignIn(self, request: pb.SignInRequest, _call: Call) -> pb.SignInResponse:
        device = messages.read_device(request.device)
        known = await self._accounts.sign_in(request.email, request.password, request.totp, device)
        return pb.SignInResponse(
            user=messages.user(known.user),
            memberships=map(messages.membership, known.memberships),
            session=messages.session(known.tokens),
        )

    async def Refresh(self, request: pb.RefreshRequest, _call: Call) -> pb.RefreshResponse:
        tokens = await self._sessions.refresh(request.refresh_token, messages.read_device(request.device))
        return pb.RefreshResponse(session=messages.session(tokens))

    async def SignOut(self, request: pb.SignOutRequest, _call: Call) -> pb.SignOutResponse:
        await self._sessions.sign_out(request.refresh_token)
        return pb.SignOutResponse()

    async def GetMe(self, _request: pb.GetMeRequest, _call: Call) -> pb.GetMeResponse:
        me = await self._accounts.me(current())
        return pb.GetMeResponse(
            user=messages.user(me.user),
            memberships=map(messages.membership, me.memberships),
            email_verified=me.email_verified,
        )

    async def ListProjects(self, request: pb.ListProjectsRequest, _call: Call) -> pb.ListProjectsResponse:
        wanted = PageRequest.parse(request.page_size, request.page_token)
        page = await self._projects.page(current(), TenantId(request.tenant_id), wanted)
        return pb.ListProjectsResponse(projects=map(messages.project, page.items), next_page_token=page.next_token)

    async def CreateProject(self, request: pb.CreateProjectRequest, _call: Call) -> pb.CreateProjectResponse:
        project = await self._projects.create(current(), TenantId(request.tenant_id), request.name)
        return pb.CreateProjectResponse(project=messages.project(project))

    async def GetProject(self, request: pb.GetProjectRequest, _call: Call) -> pb.GetProjectResponse:
        project = await self._projects.get(current(), ProjectId(request.project_id))
        return pb.GetProjectResponse(project=messages.project(project))

    async def UpdateProject(self, request: pb.UpdateProjectRequest, _call: Call) -> pb.UpdateProjectResponse:
        project = await self._projects.rename(current(), ProjectId(request.project_id), request.name)
        return pb.UpdateProjectResponse(project=messages.project(project))

    async def DeleteProject(self, request: pb.DeleteProjectRequest, _call: Call) -> pb.DeleteProjectResponse:
        await self._projects.delete(current(), ProjectId(request.project_id))
        return pb.DeleteProjectResponse()

    async def FindDeletedProjects(
        self, request: pb.FindDeletedProjectsRequest, _call: Call
    ) -> pb.FindDeletedProjectsResponse:
        deleted = await self._projects.deleted_among(list(map(ProjectId, request.project_ids)))
        return pb.FindDeletedProjectsResponse(project_ids=deleted)

    async def ListKeys(self, request: pb.ListKeysRequest, _call: Call) -> pb.ListKeysResponse:
        wanted = PageRequest.parse(request.page_size, request.page_token)
        page = await self._keys.page(current(), ProjectId(request.project_id), wanted)
        return pb.ListKeysResponse(keys=map(messages.key, page.items), next_page_token=page.next_token)

    async def CreateKey(self, request: pb.CreateKeyRequest, _call: Call) -> pb.CreateKeyResponse:
        wanted = messages.read_key_request(request)
        key, text = await self._keys.create(current(), ProjectId(request.project_id), wanted)
        return pb.CreateKeyResponse(key=messages.key(key), token=text)

    async def UpdateKey(self, request: pb.UpdateKeyRequest, _call: Call) -> pb.UpdateKeyResponse:
        change = messages.read_key_change(request)
        key = await self._keys.change(current(), ProjectId(request.project_id), KeyId(request.key_id), change)
        return pb.UpdateKeyResponse(key=messages.key(key))

    async def RevokeKey(self, request: pb.RevokeKeyRequest, _call: Call) -> pb.RevokeKeyResponse:
        await self._keys.revoke(current(), ProjectId(request.project_id), KeyId(request.key_id))
        return pb.RevokeKeyResponse()

    async def RotateKey(self, request: pb.RotateKeyRequest, _call: Call) -> pb.RotateKeyResponse:
        key, text = await self._keys.rotate(
            current(), ProjectId(request.project_id), KeyId(request.key_id), request.grace_seconds
        )
        return pb.RotateKeyResponse(key=messages.key(key), token=text)

    async def ReportLeakedKeys(self, request: pb.ReportLeakedKeysRequest, _call: Call) -> pb.ReportLeakedKeysResponse:
        reports = [LeakReport(key_hash=key.api_key_sha256, place=key.place) for key in request.keys]
        return pb.ReportLeakedKeysResponse(revoked=await self._leaks.report(reports))

    async def GetPublishableKey(
        self, request: pb.GetPublishableKeyRequest, _call: Call
    ) -> pb.GetPublishableKeyResponse:
        text = await self._keys.publishable_text(current(), ProjectId(request.project_id), KeyId(request.key_id))
        return pb.GetPublishableKeyResponse(token=text)

    async def ListMembers(self, request: pb.ListMembersRequest, _call: Call) -> pb.ListMembersResponse:
        wanted = PageRequest.parse(request.page_size, request.page_token)
        page = await self._members.page(current(), TenantId(request.tenant_id), wanted)
        return pb.ListMembersResponse(members=map(messages.member, page.items), next_page_token=page.next_token)

    async def AddMember(self, request: pb.AddMemberRequest, _call: Call) -> pb.AddMemberResponse:
        role = messages.read_role(request.role)
        member = await self._members.add(current(), TenantId(request.tenant_id), request.email, role)
        return pb.AddMemberResponse(member=messages.member(member))

    async def UpdateMember(self, request: pb.UpdateMemberRequest, _call: Call) -> pb.UpdateMemberResponse:
        role = messages.read_role(request.role)
        member = await self._members.change_role(current(), TenantId(request.tenant_id), UserId(request.user_id), role)
        return pb.UpdateMemberResponse(member=messages.member(member))

    async def RemoveMember(self, request: pb.RemoveMemberRequest, _call: Call) -> pb.RemoveMemberResponse:
        await self._members.remove(current(), TenantId(request.tenant_id), UserId(request.user_id))
        return pb.RemoveMemberResponse()
