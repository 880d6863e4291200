"""What the gateway asks auth about accounts, projects, keys and members, and of the audit log."""

from collections.abc import Sequence
from datetime import datetime

from contracts.pulsegate.auth.v1 import accounts_pb2 as accounts
from contracts.pulsegate.auth.v1 import audit_pb2 as audit
from contracts.pulsegate.auth.v1.accounts_pb2_grpc import AccountServiceStub
from contracts.pulsegate.auth.v1.audit_pb2_grpc import AuditServiceStub
from services.gateway.clients.messages import timestamp
from services.gateway.upstreams import Upstream


class Accounts:
    """auth's AccountService, for the person or key whose principal the call carries."""

    def __init__(self, auth: Upstream) -> None:
        self._auth = auth
        self._stub = AccountServiceStub(auth.channel.grpc_channel)

    async def sign_up(
        self, email: str, password: str, tenant_name: str, device: accounts.Device
    ) -> accounts.SignUpResponse:
        request = accounts.SignUpRequest(email=email, password=password, tenant_name=tenant_name, device=device)
        return await self._auth.ask(self._stub.SignUp, request)

    async def sign_in(self, email: str, password: str, totp: str, device: accounts.Device) -> accounts.SignInResponse:
        request = accounts.SignInRequest(email=email, password=password, totp=totp, device=device)
        return await self._auth.ask(self._stub.SignIn, request)

    async def refresh(self, refresh_token: str, device: accounts.Device) -> accounts.RefreshResponse:
        """Safe to repeat: auth answers a token spent a moment ago with the same successor."""
        request = accounts.RefreshRequest(refresh_token=refresh_token, device=device)
        return await self._auth.ask_again(self._stub.Refresh, request)

    async def sign_out(self, refresh_token: str) -> None:
        await self._auth.ask(self._stub.SignOut, accounts.SignOutRequest(refresh_token=refresh_token))

    async def me(self) -> accounts.GetMeResponse:
        return await self._auth.ask_again(self._stub.GetMe, accounts.GetMeRequest())

    async def projects(self, tenant_id: str, page_size: int, page_token: str) -> accounts.ListProjectsResponse:
        request = accounts.ListProjectsRequest(tenant_id=tenant_id, page_size=page_size, page_token=page_token)
        return await self._auth.ask_again(self._stub.ListProjects, request)

    async def create_project(self, tenant_id: str, name: str) -> accounts.Project:
        request = accounts.CreateProjectRequest(tenant_id=tenant_id, name=name)
        return (await self._auth.ask(self._stub.CreateProject, request)).project

    async def project(self, project_id: str) -> accounts.Project:
        request = accounts.GetProjectRequest(project_id=project_id)
        return (await self._auth.ask_again(self._stub.GetProject, request)).project

    async def rename_project(self, project_id: str, name: str) -> accounts.Project:
        request = accounts.UpdateProjectRequest(project_id=project_id, name=name)
        return (await self._auth.ask(self._stub.UpdateProject, request)).project

    async def delete_project(self, project_id: str) -> None:
        await self._auth.ask(self._stub.DeleteProject, accounts.DeleteProjectRequest(project_id=project_id))

    async def keys(self, project_id: str, page_size: int, page_token: str) -> accounts.ListKeysResponse:
        request = accounts.ListKeysRequest(project_id=project_id, page_size=page_size, page_token=page_token)
        return await self._auth.ask_again(self._stub.ListKeys, request)

    async def create_key(
        self,
        project_id: str,
        name: str,
        kind: "accounts.KeyKind.ValueType",
        scopes: Sequence[str],
        allowed_origins: Sequence[str],
        expires_at: datetime | None,
    ) -> accounts.CreateKeyResponse:
        request = accounts.CreateKeyRequest(
            project_id=project_id, name=name, kind=kind, scopes=scopes, allowed_origins=allowed_origins
        )
        if expires_at is not None:
            request.expires_at.CopyFrom(timestamp(expires_at))
        return await self._auth.ask(self._stub.CreateKey, request)

    async def change_key(self, request: accounts.UpdateKeyRequest) -> accounts.Key:
        return (await self._auth.ask(self._stub.UpdateKey, request)).key

    async def rotate_key(self, project_id: str, key_id: str, grace_seconds: int) -> accounts.RotateKeyResponse:
        request = accounts.RotateKeyRequest(project_id=project_id, key_id=key_id, grace_seconds=grace_seconds)
        return await self._auth.ask(self._stub.RotateKey, request)

    async def report_leaked_keys(self, leaked: Sequence[accounts.LeakedKey]) -> Sequence[bool]:
        """For each key whether it was a live secret one."""
        request = accounts.ReportLeakedKeysRequest(keys=leaked)
        return (await self._auth.ask(self._stub.ReportLeakedKeys, request)).revoked

    async def revoke_key(self, project_id: str, key_id: str) -> None:
        request = accounts.RevokeKeyRequest(project_id=project_id, key_id=key_id)
        await self._auth.ask(self._stub.RevokeKey, request)

    async def publishable_key(self, project_id: str, key_id: str) -> str:
        """The text of a publishable key. Raises NotFound, also for a secret key."""
        request = accounts.GetPublishableKeyRequest(project_id=project_id, key_id=key_id)
        return (await self._auth.ask_again(self._stub.GetPublishableKey, request)).token

    async def members(self, tenant_id: str, page_size: int, page_token: str) -> accounts.ListMembersResponse:
        request = accounts.ListMembersRequest(tenant_id=tenant_id, page_size=page_size, page_token=page_token)
        return await self._auth.ask_again(self._stub.ListMembers, request)

    async def add_member(self, tenant_id: str, email: str, role: "accounts.Role.ValueType") -> accounts.Member:
        request = accounts.AddMemberRequest(tenant_id=tenant_id, email=email, role=role)
        return (await self._auth.ask(self._stub.AddMember, request)).member

    async def change_role(self, tenant_id: str, user_id: str, role: "accounts.Role.ValueType") -> accounts.Member:
        request = accounts.UpdateMemberRequest(tenant_id=tenant_id, user_id=user_id, role=role)
        return (await self._auth.ask(self._stub.UpdateMember, request)).member

    async def remove_member(self, tenant_id: str, user_id: str) -> None:
        request = accounts.RemoveMemberRequest(tenant_id=tenant_id, user_id=user_id)
        await self._auth.ask(self._stub.RemoveMember, request)


class Audit:
    """auth's AuditService, for the person or key whose principal the call carries."""

    def __init__(self, auth: Upstream) -> None:
        self._auth = auth
        self._stub = AuditServiceStub(auth.channel.grpc_channel)

    async def entries(
        self, tenant_id: str, *, after: int, page_size: int, page_token: str = ""
    ) -> audit.ListAuditEntriesResponse:
        """From the oldest after a sequence number, or after the page before."""
        request = audit.ListAuditEntriesRequest(
            tenant_id=tenant_id, after=after, page_size=page_size, page_token=page_token
        )
        return await self._auth.ask_again(self._stub.ListAuditEntries, request)
