# ruff: noqa: N802 - the contract names the methods
"""CredentialService: who a credential is, auth's public keys, and the watch feed."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from chassis.errors import Malformed
from contracts.pulsegate.auth.v1 import credentials_pb2 as pb
from contracts.pulsegate.auth.v1 import credentials_pb2_grpc
from services.auth.domain import ProjectId, TenantId
from services.auth.feed import CredentialFeed
from services.auth.grpc_api import messages
from services.auth.operations.verdicts import Verdicts
from services.auth.signing_keys import KeyRing

Call = grpc.aio.ServicerContext[Any, Any]


class CredentialServicer(credentials_pb2_grpc.CredentialServiceServicer):
    """For services only."""

    def __init__(self, verdicts: Verdicts, ring: KeyRing, feed: CredentialFeed) -> None:
        self._verdicts = verdicts
        self._ring = ring
        self._feed = feed

    async def Authenticate(self, request: pb.AuthenticateRequest, _call: Call) -> pb.AuthenticateResponse:
        match request.WhichOneof("credential"):
            case "api_key_sha256":
                verdict = await self._verdicts.of_key(request.api_key_sha256)
            case "access_token":
                project_id, tenant_id = ProjectId(request.project_id), TenantId(request.tenant_id)
                verdict = await self._verdicts.of_access_token(request.access_token, project_id, tenant_id)
            case "provisioning_token_sha256":
                verdict = await self._verdicts.of_provisioning_token(request.provisioning_token_sha256)
            case _:
                raise Malformed("A credential is required.")
        return pb.AuthenticateResponse(
            principal=verdict.principal,
            revision=verdict.revision,
            allowed_origins=verdict.allowed_origins,
            plan=verdict.plan,
            limits=messages.limits(verdict.limits),
            tenant_ids=verdict.tenant_ids,
        )

    async def GetSigningKeys(self, _request: pb.GetSigningKeysRequest, _call: Call) -> pb.GetSigningKeysResponse:
        return pb.GetSigningKeysResponse(jwks_json=await self._ring.jwks())

    async def WatchCredentials(
        self, request: pb.WatchCredentialsRequest, _call: Call
    ) -> AsyncIterator[pb.WatchCredentialsResponse]:
        async for beat in self._feed.watch(request.after_revision):
            yield pb.WatchCredentialsResponse(revision=beat.revision, changed_ids=beat.changed_ids, reset=beat.reset)
