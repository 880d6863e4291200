"""The services that config calls."""

from collections.abc import Collection, Sequence

from chassis.grpc_client import ServiceChannel
from contracts.pulsegate.auth.v1 import accounts_pb2, audit_pb2, credentials_pb2
from contracts.pulsegate.auth.v1.accounts_pb2_grpc import AccountServiceStub
from contracts.pulsegate.auth.v1.audit_pb2_grpc import AuditServiceStub
from contracts.pulsegate.auth.v1.credentials_pb2_grpc import CredentialServiceStub
from services.config.audit_storage import WaitingEntry


class AuthClient:
    """auth, for its public keys, the audit log, and the projects that were deleted."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._channel = channel
        self._stub = CredentialServiceStub(channel.grpc_channel)
        self._audit = AuditServiceStub(channel.grpc_channel)
        self._accounts = AccountServiceStub(channel.grpc_channel)

    async def signing_keys(self) -> str:
        """The keys that sign principals, as a JWK set. Raises Unavailable where auth is away."""
        answer: credentials_pb2.GetSigningKeysResponse = await self._channel.call(
            self._stub.GetSigningKeys, credentials_pb2.GetSigningKeysRequest()
        )
        return answer.jwks_json

    async def record(self, entries: Sequence[WaitingEntry]) -> None:
        """See `audit.AuditLog`."""
        request = audit_pb2.RecordAuditEntriesRequest(
            entries=[
                audit_pb2.AuditEntry(
                    id=entry.id, tenant_id=entry.tenant_id, project_id=entry.project_id, document=entry.document
                )
                for entry in entries
            ]
        )
        await self._channel.call(self._audit.RecordAuditEntries, request)

    async def deleted_among(self, project_ids: Sequence[str]) -> Collection[str]:
        """See `deleted_projects.Projects`."""
        answer: accounts_pb2.FindDeletedProjectsResponse = await self._channel.call(
            self._accounts.FindDeletedProjects, accounts_pb2.FindDeletedProjectsRequest(project_ids=project_ids)
        )
        return set(answer.project_ids)
