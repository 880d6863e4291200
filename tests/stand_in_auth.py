"""A stand-in for auth, as far as other services call it: it signs principals and publishes its key."""

import json
import time
from typing import Any

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from chassis.principals import AUDIENCE, ISSUER
from contracts.pulsegate.auth.v1 import credentials_pb2, credentials_pb2_grpc


class StandInAuth(credentials_pb2_grpc.CredentialServiceServicer):
    """Register it with `add_CredentialServiceServicer_to_server`."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()

    async def GetSigningKeys(  # noqa: N802
        self, request: credentials_pb2.GetSigningKeysRequest, _call: "grpc.aio.ServicerContext[Any, Any]"
    ) -> credentials_pb2.GetSigningKeysResponse:
        key = {**OKPAlgorithm.to_jwk(self._key.public_key(), as_dict=True), "kid": "1"}
        return credentials_pb2.GetSigningKeysResponse(jwks_json=json.dumps({"keys": [key]}))

    def principal(
        self, tenant_id: str, project_id: str, *, kind: str = "secret", scopes: list[str], seconds: float = 120
    ) -> str:
        """A signed principal, good for so long."""
        claims = {
            "sub": "0192f0c1-0000-7000-8000-00000000000a",
            "kind": kind,
            "scopes": scopes,
            "tid": tenant_id,
            "pid": project_id,
            "iss": ISSUER,
            "aud": AUDIENCE,
            "exp": time.time() + seconds,
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": "1"})
