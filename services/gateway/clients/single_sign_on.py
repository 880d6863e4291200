"""What the gateway asks auth about identity providers and signing in through them."""

from contracts.pulsegate.auth.v1 import accounts_pb2 as accounts
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from contracts.pulsegate.auth.v1.single_sign_on_pb2_grpc import SingleSignOnServiceStub
from services.gateway.upstreams import Upstream


class SingleSignOn:
    """auth's SingleSignOnService; about providers for the person whose principal the call carries."""

    def __init__(self, auth: Upstream) -> None:
        self._auth = auth
        self._stub = SingleSignOnServiceStub(auth.channel.grpc_channel)

    async def create(self, tenant_id: str, settings: pb.ProviderSettings, secret: str | None) -> pb.IdentityProvider:
        request = pb.CreateIdentityProviderRequest(tenant_id=tenant_id, settings=settings, secret=secret)
        return (await self._auth.ask(self._stub.CreateIdentityProvider, request)).provider

    async def page(self, tenant_id: str, page_size: int, page_token: str) -> pb.ListIdentityProvidersResponse:
        request = pb.ListIdentityProvidersRequest(tenant_id=tenant_id, page_size=page_size, page_token=page_token)
        return await self._auth.ask_again(self._stub.ListIdentityProviders, request)

    async def get(self, tenant_id: str, provider_id: str) -> pb.IdentityProvider:
        request = pb.GetIdentityProviderRequest(tenant_id=tenant_id, provider_id=provider_id)
        return (await self._auth.ask_again(self._stub.GetIdentityProvider, request)).provider

    async def change(
        self, tenant_id: str, provider_id: str, settings: pb.ProviderSettings, secret: str | None
    ) -> pb.IdentityProvider:
        request = pb.UpdateIdentityProviderRequest(
            tenant_id=tenant_id, provider_id=provider_id, settings=settings, secret=secret
        )
        return (await self._auth.ask(self._stub.UpdateIdentityProvider, request)).provider

    async def delete(self, tenant_id: str, provider_id: str) -> None:
        request = pb.DeleteIdentityProviderRequest(tenant_id=tenant_id, provider_id=provider_id)
        await self._auth.ask(self._stub.DeleteIdentityProvider, request)

    async def make_provisioning_token(self, tenant_id: str, provider_id: str) -> pb.CreateProvisioningTokenResponse:
        request = pb.CreateProvisioningTokenRequest(tenant_id=tenant_id, provider_id=provider_id)
        return await self._auth.ask(self._stub.CreateProvisioningToken, request)

    async def revoke_provisioning_token(self, tenant_id: str, provider_id: str) -> None:
        request = pb.RevokeProvisioningTokenRequest(tenant_id=tenant_id, provider_id=provider_id)
        await self._auth.ask(self._stub.RevokeProvisioningToken, request)

    async def removed_members(self, tenant_id: str, page_size: int, page_token: str) -> pb.ListRemovedMembersResponse:
        request = pb.ListRemovedMembersRequest(tenant_id=tenant_id, page_size=page_size, page_token=page_token)
        return await self._auth.ask_again(self._stub.ListRemovedMembers, request)

    async def readmit(self, tenant_id: str, user_id: str) -> None:
        await self._auth.ask(self._stub.ReadmitMember, pb.ReadmitMemberRequest(tenant_id=tenant_id, user_id=user_id))

    async def begin(
        self, provider_id: str, *, redirect_uri: str, entity_id: str, return_to: str, challenge: str
    ) -> pb.BeginSignOnResponse:
        request = pb.BeginSignOnRequest(
            provider_id=provider_id,
            redirect_uri=redirect_uri,
            entity_id=entity_id,
            return_to=return_to,
            challenge=challenge,
        )
        return await self._auth.ask(self._stub.BeginSignOn, request)

    async def complete_oidc(self, request: pb.CompleteOidcSignOnRequest) -> pb.CompleteOidcSignOnResponse:
        return await self._auth.ask(self._stub.CompleteOidcSignOn, request)

    async def complete_saml(self, request: pb.CompleteSamlSignOnRequest) -> pb.CompleteSamlSignOnResponse:
        return await self._auth.ask(self._stub.CompleteSamlSignOn, request)

    async def saml_metadata(self, provider_id: str, *, redirect_uri: str, entity_id: str) -> bytes:
        request = pb.GetSamlMetadataRequest(provider_id=provider_id, redirect_uri=redirect_uri, entity_id=entity_id)
        return (await self._auth.ask_again(self._stub.GetSamlMetadata, request)).metadata

    async def sign_on_with_password(
        self, provider_id: str, login: str, password: str, device: accounts.Device
    ) -> pb.SignOnWithPasswordResponse:
        request = pb.SignOnWithPasswordRequest(provider_id=provider_id, login=login, password=password, device=device)
        return await self._auth.ask(self._stub.SignOnWithPassword, request)

    async def redeem(self, grant: str, verifier: str, device: accounts.Device) -> pb.RedeemSignOnResponse:
        request = pb.RedeemSignOnRequest(grant=grant, verifier=verifier, device=device)
        return await self._auth.ask(self._stub.RedeemSignOn, request)
