"""LDAP directories as identity providers: what is asked and told of them, and auth's message."""

from typing import Annotated

import msgspec

from contracts.pulsegate.auth.v1 import single_sign_on_pb2 as pb
from services.gateway.http_api.shapes import Asked, Told


class NewLdap(Asked):
    #: ldaps:// or ldap:// and a host; this, baseDn and idAttribute do not change later.
    url: str
    base_dn: str
    #: Who somebody is, with {login} as a value: `(uid={login})`, and in Active Directory
    #: `(&(objectCategory=person)(objectClass=user)(sAMAccountName={login}))`.
    user_filter: str
    #: Encrypts what begins with ldap://; only a directory on this machine may go without.
    start_tls: bool = True
    #: Certificates in PEM that sign the directory's; empty: those that auth's machine trusts.
    certificate_authority: Annotated[str, msgspec.Meta(max_length=65_536)] = ""
    #: As whom people are looked for; empty: as nobody.
    bind_dn: str = ""
    #: Left out: as before.
    bind_password: str | None = None
    #: Its value is the directory's lasting name for somebody; `objectGUID` in Active Directory.
    id_attribute: str = "entryUUID"
    email_attribute: str = "mail"
    #: Where groups are looked for; empty: below baseDn.
    group_base_dn: str = ""
    #: Which groups somebody is in: `(member={dn})`, and roleClaim is an attribute of these groups. Empty: roleClaim is
    #: an attribute of the person, such as `memberOf`.
    group_filter: str = ""


class Ldap(Told):
    url: str
    base_dn: str
    user_filter: str
    start_tls: bool
    certificate_authority: str
    bind_dn: str
    #: The password itself is never shown.
    has_bind_password: bool
    id_attribute: str
    email_attribute: str
    group_base_dn: str
    group_filter: str


def ldap_message(new: NewLdap) -> pb.LdapSettings:
    return pb.LdapSettings(
        url=new.url,
        start_tls=new.start_tls,
        certificate_authority=new.certificate_authority,
        bind_dn=new.bind_dn,
        base_dn=new.base_dn,
        user_filter=new.user_filter,
        id_attribute=new.id_attribute,
        email_attribute=new.email_attribute,
        group_base_dn=new.group_base_dn,
        group_filter=new.group_filter,
    )


def render_ldap(provider: pb.IdentityProvider) -> Ldap:
    settings = provider.settings.ldap
    return Ldap(
        url=settings.url,
        base_dn=settings.base_dn,
        user_filter=settings.user_filter,
        start_tls=settings.start_tls,
        certificate_authority=settings.certificate_authority,
        bind_dn=settings.bind_dn,
        has_bind_password=provider.has_secret,
        id_attribute=settings.id_attribute,
        email_attribute=settings.email_attribute,
        group_base_dn=settings.group_base_dn,
        group_filter=settings.group_filter,
    )
