# ruff: noqa: N802 - the contract names the methods
"""AuditService: the audit log, for its readers and for the services that add to it."""

import json
from typing import Any

import grpc

from chassis.principals import current
from contracts.pulsegate.auth.v1 import audit_pb2 as pb
from contracts.pulsegate.auth.v1 import audit_pb2_grpc
from services.auth.audit_chain import HeadSignature
from services.auth.domain import TenantId
from services.auth.operations.audit import AuditLog, ForeignEntry

Call = grpc.aio.ServicerContext[Any, Any]


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """See the contract."""

    def __init__(self, audit_log: AuditLog, signature: HeadSignature) -> None:
        self._audit_log = audit_log
        self._public_jwk = json.dumps(signature.public_jwk)

    async def ListAuditEntries(self, request: pb.ListAuditEntriesRequest, _call: Call) -> pb.ListAuditEntriesResponse:
        page = await self._audit_log.page(
            current(),
            TenantId(request.tenant_id),
            after=request.after,
            token=request.page_token,
            size=request.page_size,
        )
        return pb.ListAuditEntriesResponse(
            entries=[
                pb.SealedAuditEntry(
                    sequence=entry.sequence,
                    document=entry.document,
                    previous_hash=entry.previous_hash,
                    hash=entry.hash,
                )
                for entry in page.entries
            ],
            next_page_token=page.next_token,
            signed_head=page.signed_head,
            public_jwk_json=self._public_jwk,
        )

    async def RecordAuditEntries(
        self, request: pb.RecordAuditEntriesRequest, _call: Call
    ) -> pb.RecordAuditEntriesResponse:
        await self._audit_log.record(
            [
                ForeignEntry(
                    id=entry.id,
                    tenant_id=TenantId(entry.tenant_id),
                    project_id=entry.project_id,
                    document=entry.document,
                )
                for entry in request.entries
            ]
        )
        return pb.RecordAuditEntriesResponse()
