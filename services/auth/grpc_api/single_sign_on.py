# ruff: noqa: N802 - the contract names the methods
"""SingleSignOnService: identity providers of tenants, and signing in through them."""

from dataclasses import asdict
from typing import Any

import grpc

from chassis.errors import Invalid
from chassis.principals import current
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from contracts.pulsegate.auth.v1 import single_sign_on_pb2_grpc
from services.auth.domain import PageRequest, TenantId, UserId
from services.auth.grpc_api import messages
from services.auth.identity_providers import (
    AdmissionRules,
    IdentityProvider,
    ProviderId,
    ProviderWish,
    RemovedMember,
    RoleMapping,
)
from services.auth.oidc import Returned
from services.auth.operations.directory_sign_on import DirectorySignOn
from services.auth.operations.identity_providers import IdentityProviders
from services.auth.operations.removed_members import RemovedMembers
from services.auth.operations.single_sign_on import SingleSignOn
from services.auth.provider_settings import KindSettings, LdapSettings, OidcSettings, SamlSettings
from services.auth.saml import SamlAnswer
from services.auth.saml_documents import UnreadableXml
from services.auth.saml_metadata import ProviderMetadata, ServiceProvider, read_metadata

Call = grpc.aio.ServicerContext[Any, Any]


class SingleSignOnServicer(single_sign_on_pb2_grpc.SingleSignOnServiceServicer):
    """One method a call; those about providers come with a principal (`chassis.principals`)."""

    def __init__(
        self,
        providers: IdentityProviders,
        single_sign_on: SingleSignOn,
        directory_sign_on: DirectorySignOn,
        removed_members: RemovedMembers,
    ) -> None:
        self._providers = providers
        self._single_sign_on = single_sign_on
        self._directory_sign_on = directory_sign_on
        self._removed_members = removed_members

    async def CreateIdentityProvider(
        self, request: pb.CreateIdentityProviderRequest, _call: Call
    ) -> pb.CreateIdentityProviderResponse:
        made = await self._providers.create(current(), TenantId(request.tenant_id), _read_wish(request))
        return pb.CreateIdentityProviderResponse(provider=_provider(made))

    async def ListIdentityProviders(
        self, request: pb.ListIdentityProvidersRequest, _call: Call
    ) -> pb.ListIdentityProvidersResponse:
        wanted = PageRequest.parse(request.page_size, request.page_token)
        page = await self._providers.page(current(), TenantId(request.tenant_id), wanted)
        return pb.ListIdentityProvidersResponse(providers=map(_provider, page.items), next_page_token=page.next_token)

    async def GetIdentityProvider(
        self, request: pb.GetIdentityProviderRequest, _call: Call
    ) -> pb.GetIdentityProviderResponse:
        found = await self._providers.get(current(), TenantId(request.tenant_id), ProviderId(request.provider_id))
        return pb.GetIdentityProviderResponse(provider=_provider(found))

    async def UpdateIdentityProvider(
        self, request: pb.UpdateIdentityProviderRequest, _call: Call
    ) -> pb.UpdateIdentityProviderResponse:
        tenant_id, provider_id = TenantId(request.tenant_id), ProviderId(request.provider_id)
        changed = await self._providers.change(current(), tenant_id, provider_id, _read_wish(request))
        return pb.UpdateIdentityProviderResponse(provider=_provider(changed))

    async def DeleteIdentityProvider(
        self, request: pb.DeleteIdentityProviderRequest, _call: Call
    ) -> pb.DeleteIdentityProviderResponse:
        await self._providers.delete(current(), TenantId(request.tenant_id), ProviderId(request.provider_id))
        return pb.DeleteIdentityProviderResponse()

    async def CreateProvisioningToken(
        self, request: pb.CreateProvisioningTokenRequest, _call: Call
    ) -> pb.CreateProvisioningTokenResponse:
        tenant_id, provider_id = TenantId(request.tenant_id), ProviderId(request.provider_id)
        token, made_at = await self._providers.make_provisioning_token(current(), tenant_id, provider_id)
        return pb.CreateProvisioningTokenResponse(token=token, created_at=messages.timestamp(made_at))

    async def RevokeProvisioningToken(
        self, request: pb.RevokeProvisioningTokenRequest, _call: Call
    ) -> pb.RevokeProvisioningTokenResponse:
        tenant_id, provider_id = TenantId(request.tenant_id), ProviderId(request.provider_id)
        await self._providers.revoke_provisioning_token(current(), tenant_id, provider_id)
        return pb.RevokeProvisioningTokenResponse()

    async def BeginSignOn(self, request: pb.BeginSignOnRequest, _call: Call) -> pb.BeginSignOnResponse:
        begun = await self._single_sign_on.begin(
            ProviderId(request.provider_id), _us(request), request.return_to, request.challenge
        )
        return pb.BeginSignOnResponse(
            authorization_url=begun.authorization_url,
            state=begun.state,
            browser_secret=begun.browser_secret,
            posts_back=begun.posts_back,
        )

    async def CompleteOidcSignOn(
        self, request: pb.CompleteOidcSignOnRequest, _call: Call
    ) -> pb.CompleteOidcSignOnResponse:
        returned = Returned(
            code=request.code, issuer=request.issuer, error=request.error, redirect_uri=request.redirect_uri
        )
        completed = await self._single_sign_on.complete(
            ProviderId(request.provider_id),
            request.state,
            request.browser_secret,
            returned,
            messages.read_device(request.device),
        )
        return pb.CompleteOidcSignOnResponse(return_to=completed.return_to, grant=completed.grant)

    async def CompleteSamlSignOn(
        self, request: pb.CompleteSamlSignOnRequest, _call: Call
    ) -> pb.CompleteSamlSignOnResponse:
        completed = await self._single_sign_on.complete(
            ProviderId(request.provider_id),
            request.state,
            request.browser_secret,
            SamlAnswer(response=request.response, to=_us(request)),
            messages.read_device(request.device),
        )
        return pb.CompleteSamlSignOnResponse(return_to=completed.return_to, grant=completed.grant)

    async def GetSamlMetadata(self, request: pb.GetSamlMetadataRequest, _call: Call) -> pb.GetSamlMetadataResponse:
        metadata = await self._single_sign_on.saml_metadata(ProviderId(request.provider_id), _us(request))
        return pb.GetSamlMetadataResponse(metadata=metadata)

    async def RedeemSignOn(self, request: pb.RedeemSignOnRequest, _call: Call) -> pb.RedeemSignOnResponse:
        known = await self._single_sign_on.redeem(request.grant, request.verifier, messages.read_device(request.device))
        return pb.RedeemSignOnResponse(
            user=messages.user(known.user),
            memberships=map(messages.membership, known.memberships),
            session=messages.session(known.tokens),
        )

    async def SignOnWithPassword(
        self, request: pb.SignOnWithPasswordRequest, _call: Call
    ) -> pb.SignOnWithPasswordResponse:
        known = await self._directory_sign_on.sign_in(
            ProviderId(request.provider_id), request.login, request.password, messages.read_device(request.device)
        )
        return pb.SignOnWithPasswordResponse(
            user=messages.user(known.user),
            memberships=map(messages.membership, known.memberships),
            session=messages.session(known.tokens),
        )

    async def ListRemovedMembers(
        self, request: pb.ListRemovedMembersRequest, _call: Call
    ) -> pb.ListRemovedMembersResponse:
        wanted = PageRequest.parse(request.page_size, request.page_token)
        page = await self._removed_members.page(current(), TenantId(request.tenant_id), wanted)
        return pb.ListRemovedMembersResponse(members=map(_removed, page.items), next_page_token=page.next_token)

    async def ReadmitMember(self, request: pb.ReadmitMemberRequest, _call: Call) -> pb.ReadmitMemberResponse:
        await self._removed_members.readmit(current(), TenantId(request.tenant_id), UserId(request.user_id))
        return pb.ReadmitMemberResponse()


def _read_wish(request: pb.CreateIdentityProviderRequest | pb.UpdateIdentityProviderRequest) -> ProviderWish:
    """Raises Invalid."""
    wanted = request.settings
    return ProviderWish(
        name=wanted.name,
        enabled=wanted.enabled,
        admission=AdmissionRules(
            email_domains=tuple(wanted.email_domains),
            default_role=messages.read_role(wanted.default_role) if wanted.default_role else None,
            role_claim=wanted.role_claim,
            role_mappings=tuple(
                RoleMapping(value=mapping.value, role=messages.read_role(mapping.role))
                for mapping in wanted.role_mappings
            ),
        ),
        settings=_read_settings(wanted),
        secret=request.secret if request.HasField("secret") else None,
    )


def _read_settings(wanted: pb.ProviderSettings) -> KindSettings:
    if wanted.HasField("saml"):
        return _read_saml(wanted.saml)
    if wanted.HasField("ldap"):
        return _read_ldap(wanted.ldap)
    if not wanted.HasField("oidc"):
        raise Invalid.fields({"oidc": "is required, or another kind"})
    return OidcSettings(
        issuer=wanted.oidc.issuer,
        client_id=wanted.oidc.client_id,
        scopes=tuple(wanted.oidc.scopes),
        trusts_email=wanted.oidc.trusts_email,
    )


def _read_saml(wanted: pb.SamlSettings) -> SamlSettings:
    """What metadata says counts. It is read at once: a document of its bounded size takes a millisecond."""
    said: pb.SamlSettings | ProviderMetadata = wanted
    if wanted.metadata:
        try:
            said = read_metadata(wanted.metadata)
        except UnreadableXml as error:
            raise Invalid.fields({"saml.metadata": f"cannot be used: {error}"}) from error
    return SamlSettings(
        entity_id=said.entity_id,
        sign_in_url=said.sign_in_url,
        certificates=tuple(said.certificates),
        subject_attribute=wanted.subject_attribute,
        email_attribute=wanted.email_attribute,
    )


def _us(
    request: pb.BeginSignOnRequest | pb.CompleteSamlSignOnRequest | pb.GetSamlMetadataRequest,
) -> ServiceProvider:
    return ServiceProvider(entity_id=request.entity_id, acs_url=request.redirect_uri)


def _read_ldap(wanted: pb.LdapSettings) -> LdapSettings:
    return LdapSettings(
        url=wanted.url,
        start_tls=wanted.start_tls,
        certificate_authority=wanted.certificate_authority,
        bind_dn=wanted.bind_dn,
        base_dn=wanted.base_dn,
        user_filter=wanted.user_filter,
        id_attribute=wanted.id_attribute,
        email_attribute=wanted.email_attribute,
        group_base_dn=wanted.group_base_dn,
        group_filter=wanted.group_filter,
    )


def _provider(value: IdentityProvider) -> pb.IdentityProvider:
    admission = value.admission
    settings = pb.ProviderSettings(
        name=value.name,
        enabled=value.enabled,
        email_domains=admission.email_domains,
        default_role=messages.role(admission.default_role),
        role_claim=admission.role_claim,
        role_mappings=[
            pb.RoleMapping(value=mapping.value, role=messages.role(mapping.role)) for mapping in admission.role_mappings
        ],
        **_kind(value.settings),
    )
    return pb.IdentityProvider(
        id=value.id,
        settings=settings,
        has_secret=value.sealed_secret is not None,
        created_at=messages.timestamp(value.created_at),
        updated_at=messages.timestamp(value.updated_at),
        provisioning_since=messages.timestamp(value.provisioning_since),
    )


def _removed(member: RemovedMember) -> pb.RemovedMember:
    return pb.RemovedMember(
        user=messages.user(member.user),
        provider_id=member.provider_id,
        removed_at=messages.timestamp(member.removed_at),
        deactivated_at=messages.timestamp(member.deactivated_at),
    )


def _kind(settings: KindSettings) -> dict[str, Any]:
    """The one member of the message that says what is particular to the kind."""
    if isinstance(settings, SamlSettings):
        return {"saml": pb.SamlSettings(**asdict(settings))}
    if isinstance(settings, LdapSettings):
        return {"ldap": pb.LdapSettings(**asdict(settings))}
    return {"oidc": pb.OidcSettings(**asdict(settings))}
