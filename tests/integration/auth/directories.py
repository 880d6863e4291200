"""LDAP directories as identity providers, and people who sign in with their passwords, as the gateway's calls."""

from typing import Any

import pytest

from chassis.errors import PulsegateError
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from tests.integration.auth.client import AuthClient, Person
from tests.integration.auth.lying_directory import LyingDirectory
from tests.integration.auth.sign_ons import VIEWER
from tests.suite_ldap import BASE_DN, PASSWORD, SERVICE_DN, SERVICE_PASSWORD, Directory


def of_directory(directory: Directory, **changed: Any) -> pb.ProviderSettings:
    """Over TLS from the first byte, unless told otherwise; `ldap` changes what is said of the directory."""
    ldap = {
        "url": directory.tls_url,
        "start_tls": True,
        "certificate_authority": directory.certificate,
        "bind_dn": SERVICE_DN,
        "base_dn": BASE_DN,
        "user_filter": "(&(objectClass=person)(uid={login}))",
        "id_attribute": "entryUUID",
        "email_attribute": "mail",
        **changed.pop("ldap", {}),
    }
    wanted = {"name": "Directory", "enabled": True, "default_role": VIEWER, **changed}
    return pb.ProviderSettings(**wanted, ldap=pb.LdapSettings(**ldap))


def of_liar(liar: LyingDirectory, **changed: Any) -> pb.ProviderSettings:
    ldap = {
        "url": liar.url,
        "bind_dn": "cn=service",
        "base_dn": "dc=example,dc=com",
        "user_filter": "(uid={login})",
        "id_attribute": "entryUUID",
        "email_attribute": "mail",
        **changed.pop("ldap", {}),
    }
    wanted = {"name": "Liar", "enabled": True, "default_role": VIEWER, **changed}
    return pb.ProviderSettings(**wanted, ldap=pb.LdapSettings(**ldap))


async def add_directory(
    auth: AuthClient, owner: Person, settings: pb.ProviderSettings, secret: str | None = SERVICE_PASSWORD
) -> pb.IdentityProvider:
    request = pb.CreateIdentityProviderRequest(tenant_id=owner.tenant_id, settings=settings, secret=secret)
    answer: pb.CreateIdentityProviderResponse = await auth.sso(
        "CreateIdentityProvider", request, await auth.principal(owner)
    )
    return answer.provider


async def change_directory(
    auth: AuthClient, owner: Person, provider: pb.IdentityProvider, settings: pb.ProviderSettings
) -> pb.IdentityProvider:
    request = pb.UpdateIdentityProviderRequest(tenant_id=owner.tenant_id, provider_id=provider.id, settings=settings)
    answer: pb.UpdateIdentityProviderResponse = await auth.sso(
        "UpdateIdentityProvider", request, await auth.principal(owner)
    )
    return answer.provider


async def sign_in(
    auth: AuthClient, provider: pb.IdentityProvider, login: str, password: str = PASSWORD
) -> pb.SignOnWithPasswordResponse:
    request = pb.SignOnWithPasswordRequest(
        provider_id=provider.id, login=login, password=password, device=accounts_pb2.Device(name="Firefox")
    )
    answer: pb.SignOnWithPasswordResponse = await auth.sso("SignOnWithPassword", request)
    return answer


async def refusal(auth: AuthClient, provider: pb.IdentityProvider, login: str, password: str = PASSWORD) -> str:
    """With which code a sign-on is refused."""
    with pytest.raises(PulsegateError) as error:
        await sign_in(auth, provider, login, password)
    return error.value.code
