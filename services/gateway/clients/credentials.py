"""What the gateway asks auth about credentials, and for its public keys."""

import json
from collections.abc import AsyncIterator
from typing import Any

from chassis import api_keys, context
from chassis.clock import Clock
from chassis.errors import PulsegateError
from chassis.principals import PrincipalVerifier
from contracts.pulsegate.auth.v1 import credentials_pb2 as credentials
from contracts.pulsegate.auth.v1.credentials_pb2_grpc import CredentialServiceStub
from services.gateway.clients.messages import overrides_of
from services.gateway.domain import NO_OVERRIDES, Credential, Verdict
from services.gateway.upstreams import Upstream
from services.gateway.verdicts import FeedEntry

#: How long auth's public keys are answered from memory.
_KEYS_SECONDS = 30.0


class Credentials:
    """auth's CredentialService: who a credential is, and the feed of what changed."""

    def __init__(self, auth: Upstream) -> None:
        self._auth = auth
        self._stub = CredentialServiceStub(auth.channel.grpc_channel)
        self._verifier = PrincipalVerifier(self.signing_keys)

    async def authenticate(
        self, credential: Credential, project_id: str, tenant_id: str, timeout_seconds: float
    ) -> Verdict:
        """See `verdicts.Authority`."""
        request = credentials.AuthenticateRequest(project_id=project_id, tenant_id=tenant_id)
        if credential.kind == "user":
            request.access_token = credential.text
        elif credential.kind == "provisioner":
            request.provisioning_token_sha256 = api_keys.digest(credential.text)
        else:
            request.api_key_sha256 = api_keys.digest(credential.text)
        # A look-up is shared by requests: it has a time limit of its own, and shows nobody's principal. Its place it
        # has on behalf of the address that began it, where that may be guessing.
        context.DEADLINE.set(None)
        context.PRINCIPAL_TOKEN.set("")
        answer = await self._auth.ask_again(self._stub.Authenticate, request, timeout_seconds=timeout_seconds)
        return Verdict(
            principal=await self._verifier.verify(answer.principal),
            token=answer.principal,
            revision=answer.revision,
            plan=answer.plan,
            allowed_origins=frozenset(answer.allowed_origins),
            overrides=overrides_of(answer.limits) if answer.HasField("limits") else NO_OVERRIDES,
            tenant_ids=frozenset(answer.tenant_ids),
        )

    async def watch(self, after_revision: int) -> AsyncIterator[FeedEntry]:
        """See `verdicts.Authority`."""
        request = credentials.WatchCredentialsRequest(after_revision=after_revision)
        async for answer in self._auth.channel.stream(self._stub.WatchCredentials, request):
            yield FeedEntry(revision=answer.revision, changed_ids=tuple(answer.changed_ids), reset=answer.reset)

    async def signing_keys(self) -> str:
        """auth's public keys as a JWK set, in JSON."""
        answer = await self._auth.ask_again(self._stub.GetSigningKeys, credentials.GetSigningKeysRequest())
        return answer.jwks_json


class SigningKeys:
    """auth's public keys as they were last seen, for `/.well-known/jwks.json` and for readiness."""

    def __init__(self, auth: Credentials, clock: Clock) -> None:
        self._auth = auth
        self._clock = clock
        self._seen: dict[str, Any] | None = None
        self._seen_at = float("-inf")

    async def current(self) -> dict[str, Any]:
        """The JWK set: at most 30 s old, or older while auth is away. Raises Unavailable where none was ever seen."""
        if self._seen is None or self._clock.monotonic() - self._seen_at > _KEYS_SECONDS:
            try:
                self._seen = json.loads(await self._auth.signing_keys())
                self._seen_at = self._clock.monotonic()
            except PulsegateError:
                if self._seen is None:
                    raise
        return self._seen or {}

    async def probe(self) -> None:
        """A health check: the keys were seen once."""
        if self._seen is None:
            await self.current()
