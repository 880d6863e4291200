"""The services that config calls."""

from chassis.grpc_client import ServiceChannel
from contracts.pulsegate.auth.v1 import credentials_pb2
from contracts.pulsegate.auth.v1.credentials_pb2_grpc import CredentialServiceStub


class AuthClient:
    """auth, for its public keys."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._channel = channel
        self._stub = CredentialServiceStub(channel.grpc_channel)

    async def signing_keys(self) -> str:
        """The keys that sign principals, as a JWK set. Raises Unavailable where auth is away."""
        answer: credentials_pb2.GetSigningKeysResponse = await self._channel.call(
            self._stub.GetSigningKeys, credentials_pb2.GetSigningKeysRequest()
        )
        return answer.jwks_json
