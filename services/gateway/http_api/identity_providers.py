"""Through which identity providers a tenant's people sign in."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from chassis.errors import Invalid
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from services.gateway.clients.single_sign_on import SingleSignOn
from services.gateway.http_api.bodies import (
    Asking,
    Page,
    Taking,
    answer,
    moment,
    no_content,
    optional_moment,
    path_id,
    shown_once,
)
from services.gateway.http_api.directories import Ldap, NewLdap, ldap_message, render_ldap
from services.gateway.http_api.members import ROLE_NAMES, ROLES, RoleName
from services.gateway.http_api.shapes import Asked, Id, Moment, Name, Told
from services.gateway.routes import Audience, Operation, Route

#: With 100 000 characters of metadata, certificates and a hundred role mappings.
_MOST_BYTES = 256 << 10

#: Owners are made by hand.
MappedRole = Literal["viewer", "editor", "admin"]


class NewRoleMapping(Asked):
    #: Of the claim or attribute.
    value: str
    role: MappedRole


class ProvisioningToken(Told):
    #: Shown only here.
    token: str
    created_at: Moment
    #: Where the provider calls with it.
    scim_url: str


class RoleMapping(Told):
    value: str
    role: RoleName


class NewOidc(Asked):
    #: Exactly as the provider writes it; it does not change later.
    issuer: str
    client_id: str
    #: Left out: as before; a client without a secret has PKCE alone.
    client_secret: str | None = None
    #: Beyond openid, email and profile.
    scopes: list[str] = msgspec.field(default_factory=list)
    #: Whether to believe addresses of which the provider does not say whether they are verified.
    trusts_email: bool = False


class Oidc(Told):
    issuer: str
    client_id: str
    #: The secret itself is never shown.
    has_client_secret: bool
    scopes: list[str]
    trusts_email: bool
    #: To be registered at the provider.
    redirect_uri: str


class NewSaml(Asked):
    #: What the provider publishes of itself, instead of the three below.
    metadata: Annotated[str, msgspec.Meta(max_length=100_000)] = ""
    #: Exactly as the provider writes it; it does not change later.
    entity_id: str = ""
    #: Where browsers are sent, by the HTTP-Redirect binding.
    sign_in_url: str = ""
    #: X.509, in PEM or in base64: whose keys may sign; several while one follows another.
    certificates: Annotated[list[str], msgspec.Meta(max_length=10)] = msgspec.field(default_factory=list)
    #: The attribute that is the provider's lasting name for a person, which does not change later; empty: their
    #: persistent NameID.
    subject_attribute: str = ""
    email_attribute: str = "email"


class Saml(Told):
    entity_id: str
    sign_in_url: str
    certificates: list[str]
    subject_attribute: str
    email_attribute: str
    #: To be registered at the provider: where it finds all that it is to know of us, which is our entity id too.
    metadata_url: str
    #: Where it sends browsers back to, by the HTTP-POST binding.
    acs_url: str


class NewIdentityProvider(Asked):
    """With one of `oidc`, `saml` and `ldap`."""

    name: Name
    oidc: NewOidc | None = None
    saml: NewSaml | None = None
    ldap: NewLdap | None = None
    enabled: bool = True
    #: Of the addresses that may sign in; empty: any.
    email_domains: list[str] = msgspec.field(default_factory=list)
    #: Of who has no mapped value; null: who has none may not sign in.
    default_role: MappedRole | None = None
    #: The claim or attribute whose values are mapped to roles, such as `groups`, `realm_access.roles` or `memberOf`.
    role_claim: str = ""
    #: The highest counts, at each sign-in. Empty: roles are changed by hand.
    role_mappings: Annotated[list[NewRoleMapping], msgspec.Meta(max_length=100)] = msgspec.field(default_factory=list)


class IdentityProvider(Told, omit_defaults=True):
    """With one of `oidc` and `saml`."""

    id: Id
    name: str
    enabled: bool
    email_domains: list[str]
    default_role: RoleName | None
    role_claim: str
    role_mappings: list[RoleMapping]
    #: Where a browser begins to sign in; of a directory: where a login and a password are posted.
    sign_in_url: str
    created_at: Moment
    updated_at: Moment
    oidc: Oidc | None = None
    saml: Saml | None = None
    ldap: Ldap | None = None
    #: When the token was made with which it says who has left, where it has one.
    provisioning_since: Moment | None = None


class IdentityProviders(Told):
    items: list[IdentityProvider]
    next_page_token: str


class IdentityProviderRoutes:
    """`/api/v1/tenants/{tenantId}/identity-providers`"""

    title = "Identity providers"

    def __init__(self, single_sign_on: SingleSignOn, *, endpoint: str) -> None:
        self._single_sign_on = single_sign_on
        self._endpoint = endpoint

    def routes(self) -> Sequence[Route]:
        providers = "/api/v1/tenants/{tenantId}/identity-providers"
        provider = providers + "/{providerId}"
        return [*self._routes_of_providers(providers, provider), *self._routes_of_tokens(provider)]

    def _routes_of_providers(self, providers: str, provider: str) -> Sequence[Route]:
        return [
            Route(
                "GET",
                providers,
                Asking(Page, self.list),
                Audience.READ,
                Operation("List identity providers", {200: IdentityProviders}, "For admins."),
            ),
            Route(
                "POST",
                providers,
                Taking(NewIdentityProvider, self.create, most_bytes=_MOST_BYTES),
                Audience.WRITE,
                Operation("Add an identity provider", {201: IdentityProvider}, "For owners.", errors=(409,)),
            ),
            Route(
                "GET",
                provider,
                self.get,
                Audience.READ,
                Operation("Show an identity provider", {200: IdentityProvider}),
            ),
            Route(
                "PUT",
                provider,
                Taking(NewIdentityProvider, self.change, most_bytes=_MOST_BYTES),
                Audience.WRITE,
                Operation(
                    "Change an identity provider",
                    {200: IdentityProvider},
                    "Everything but its kind, its issuer and what it names people by; a secret that is left out stays.",
                    errors=(409,),
                ),
            ),
            Route(
                "DELETE",
                provider,
                self.delete,
                Audience.WRITE,
                Operation("Delete an identity provider", {204: None}, "With the accounts that it made.", errors=(409,)),
            ),
        ]

    def _routes_of_tokens(self, provider: str) -> Sequence[Route]:
        return [
            Route(
                "POST",
                provider + "/provisioning-token",
                self.make_provisioning_token,
                Audience.WRITE,
                Operation(
                    "Make a provisioning token",
                    {201: ProvisioningToken},
                    "With which the provider says by SCIM who has left. The one before is void.",
                ),
            ),
            Route(
                "DELETE",
                provider + "/provisioning-token",
                self.revoke_provisioning_token,
                Audience.WRITE,
                Operation("Revoke a provisioning token", {204: None}),
            ),
        ]

    async def list(self, request: web.Request, page: Page) -> web.Response:
        found = await self._single_sign_on.page(path_id(request, "tenantId"), page.page_size, page.page_token)
        return answer(IdentityProviders([self._render(one) for one in found.providers], found.next_page_token))

    async def create(self, request: web.Request, new: NewIdentityProvider) -> web.Response:
        made = await self._single_sign_on.create(path_id(request, "tenantId"), _settings(new), _secret(new))
        return answer(self._render(made), status=201)

    async def get(self, request: web.Request) -> web.Response:
        found = await self._single_sign_on.get(path_id(request, "tenantId"), path_id(request, "providerId"))
        return answer(self._render(found))

    async def change(self, request: web.Request, new: NewIdentityProvider) -> web.Response:
        tenant_id, provider_id = path_id(request, "tenantId"), path_id(request, "providerId")
        changed = await self._single_sign_on.change(tenant_id, provider_id, _settings(new), _secret(new))
        return answer(self._render(changed))

    async def delete(self, request: web.Request) -> web.Response:
        await self._single_sign_on.delete(path_id(request, "tenantId"), path_id(request, "providerId"))
        return no_content()

    async def make_provisioning_token(self, request: web.Request) -> web.Response:
        tenant_id, provider_id = path_id(request, "tenantId"), path_id(request, "providerId")
        made = await self._single_sign_on.make_provisioning_token(tenant_id, provider_id)
        token = ProvisioningToken(made.token, moment(made.created_at), f"{self._endpoint}/scim/v2")
        return shown_once(answer(token, status=201))

    async def revoke_provisioning_token(self, request: web.Request) -> web.Response:
        tenant_id, provider_id = path_id(request, "tenantId"), path_id(request, "providerId")
        await self._single_sign_on.revoke_provisioning_token(tenant_id, provider_id)
        return no_content()

    def _render(self, provider: pb.IdentityProvider) -> IdentityProvider:
        settings = provider.settings
        return IdentityProvider(
            id=provider.id,
            name=settings.name,
            enabled=settings.enabled,
            email_domains=list(settings.email_domains),
            default_role=ROLE_NAMES.get(settings.default_role),
            role_claim=settings.role_claim,
            role_mappings=[RoleMapping(one.value, ROLE_NAMES[one.role]) for one in settings.role_mappings],
            sign_in_url=(password_url if settings.HasField("ldap") else sign_in_url)(self._endpoint, provider.id),
            created_at=moment(provider.created_at),
            updated_at=moment(provider.updated_at),
            provisioning_since=optional_moment(provider, "provisioning_since"),
            oidc=self._oidc(provider) if settings.HasField("oidc") else None,
            saml=self._saml(provider) if settings.HasField("saml") else None,
            ldap=render_ldap(provider) if settings.HasField("ldap") else None,
        )

    def _oidc(self, provider: pb.IdentityProvider) -> Oidc:
        settings = provider.settings.oidc
        return Oidc(
            issuer=settings.issuer,
            client_id=settings.client_id,
            has_client_secret=provider.has_secret,
            scopes=list(settings.scopes),
            trusts_email=settings.trusts_email,
            redirect_uri=redirect_uri(self._endpoint, provider.id),
        )

    def _saml(self, provider: pb.IdentityProvider) -> Saml:
        settings = provider.settings.saml
        return Saml(
            entity_id=settings.entity_id,
            sign_in_url=settings.sign_in_url,
            certificates=list(settings.certificates),
            subject_attribute=settings.subject_attribute,
            email_attribute=settings.email_attribute,
            metadata_url=metadata_url(self._endpoint, provider.id),
            acs_url=redirect_uri(self._endpoint, provider.id),
        )


def sign_in_url(endpoint: str, provider_id: str) -> str:
    """Where a browser begins to sign in."""
    return f"{endpoint}/api/v1/auth/sso/{provider_id}"


def password_url(endpoint: str, provider_id: str) -> str:
    """Where somebody signs in with the password that a directory takes."""
    return f"{sign_in_url(endpoint, provider_id)}/password"


def redirect_uri(endpoint: str, provider_id: str) -> str:
    """Where a provider sends it back to: each to an address of its own, so that none is taken for another."""
    return f"{sign_in_url(endpoint, provider_id)}/callback"


def metadata_url(endpoint: str, provider_id: str) -> str:
    """Where a SAML provider finds what it is to know of us, and what it knows us by."""
    return f"{sign_in_url(endpoint, provider_id)}/metadata"


def _secret(new: NewIdentityProvider) -> str | None:
    if new.ldap:
        return new.ldap.bind_password
    return new.oidc.client_secret if new.oidc else None


def _settings(new: NewIdentityProvider) -> pb.ProviderSettings:
    """Raises Invalid."""
    if sum(kind is not None for kind in (new.oidc, new.saml, new.ldap)) != 1:
        raise Invalid.fields({"oidc": "is required, or saml, or ldap, and one of them alone"})
    return pb.ProviderSettings(
        name=new.name,
        enabled=new.enabled,
        email_domains=new.email_domains,
        default_role=ROLES[new.default_role] if new.default_role else accounts_pb2.ROLE_UNSPECIFIED,
        role_claim=new.role_claim,
        role_mappings=[pb.RoleMapping(value=one.value, role=ROLES[one.role]) for one in new.role_mappings],
        oidc=_oidc(new.oidc) if new.oidc else None,
        saml=_saml(new.saml) if new.saml else None,
        ldap=ldap_message(new.ldap) if new.ldap else None,
    )


def _oidc(new: NewOidc) -> pb.OidcSettings:
    return pb.OidcSettings(issuer=new.issuer, client_id=new.client_id, scopes=new.scopes, trusts_email=new.trusts_email)


def _saml(new: NewSaml) -> pb.SamlSettings:
    return pb.SamlSettings(
        metadata=new.metadata,
        entity_id=new.entity_id,
        sign_in_url=new.sign_in_url,
        certificates=new.certificates,
        subject_attribute=new.subject_attribute,
        email_attribute=new.email_attribute,
    )
