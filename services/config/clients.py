"""The services that config calls."""

from collections.abc import Sequence

from chassis.grpc_client import ServiceChannel
from contracts.pulsegate.auth.v1 import audit_pb2, credentials_pb2
from contracts.pulsegate.auth.v1.audit_pb2_grpc import AuditServiceStub
from contracts.pulsegate.auth.v1.credentials_pb2_grpc import CredentialServiceStub
from services.config.audit_storage import WaitingEntry


class AuthClient:
    """auth, for its public keys and the audit log."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._channel = channel
        self._stub = CredentialServiceStub(channel.grpc_channel)
        self._audit = AuditServiceStub(channel.grpc_channel)

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
