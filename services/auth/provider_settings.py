"""Settings of identity providers, a class for each kind, and what is wrong with them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.auth.ldap_filters import DN, LOGIN, filter_fault
from services.auth.signing_certificates import UnusableCertificate, read_authorities, read_certificate

#: Of a text that a setting does not give another length.
MOST_CHARACTERS = 255

_MOST_SCOPES = 20
_MOST_URL_CHARACTERS = 1000
#: For the one that signs, and those that it is about to be followed by.
_MOST_CERTIFICATES = 10
_MOST_CERTIFICATE_CHARACTERS = 10_000
# RFC 6749, 3.3.
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,255}")
_DIRECTORY = re.compile(r"ldaps?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
# RFC 4512, 1.4.
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,99}|[0-9]+(?:\.[0-9]+){1,20}")
_MOST_AUTHORITY_CHARACTERS = 65_536

#: What is wrong, by member.
Faults = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class OidcSettings:
    """An OpenID provider, and who we are to it."""

    #: Exactly as the provider writes it.
    issuer: str
    client_id: str
    #: Beyond openid, email and profile.
    scopes: tuple[str, ...] = ()
    #: Whether addresses are believed of which it does not say whether they are verified.
    trusts_email: bool = False

    kind = "oidc"

    @property
    def known_by(self) -> str:
        """What names this provider: another value would be another provider, whose names for people mean others."""
        return self.issuer

    @property
    def address(self) -> str:
        """Where it is."""
        return self.issuer

    def faults(self) -> Faults:
        possible = {
            "oidc.issuer": _url_fault(self.issuer),
            "oidc.clientId": text_fault(self.client_id),
            "oidc.scopes": None
            if len(self.scopes) <= _MOST_SCOPES and all(map(_SCOPE.fullmatch, self.scopes))
            else f"must be at most {_MOST_SCOPES} scopes",
        }
        return {name: fault for name, fault in possible.items() if fault}


@dataclass(frozen=True, kw_only=True)
class SamlSettings:
    """A provider of SAML 2.0."""

    #: Exactly as the provider writes it.
    entity_id: str
    #: Where browsers are sent, by the HTTP-Redirect binding.
    sign_in_url: str
    #: In PEM or base64: whose keys may sign, several while one follows another.
    certificates: tuple[str, ...]
    #: The attribute that is its lasting name for a person; empty: their persistent NameID.
    subject_attribute: str = ""
    email_attribute: str = "email"

    kind = "saml"

    @property
    def known_by(self) -> str:
        """As of OpenID providers; another attribute would name people otherwise too."""
        return f"{self.entity_id} {self.subject_attribute}".strip()

    @property
    def address(self) -> str:
        """Where browsers are sent."""
        return self.sign_in_url

    def faults(self) -> Faults:
        possible = {
            "saml.entityId": text_fault(self.entity_id, most=_MOST_URL_CHARACTERS),
            "saml.signInUrl": text_fault(self.sign_in_url, most=_MOST_URL_CHARACTERS),
            "saml.certificates": _certificates_fault(self.certificates),
            "saml.subjectAttribute": text_fault(self.subject_attribute, least=0),
            "saml.emailAttribute": text_fault(self.email_attribute),
        }
        return {name: fault for name, fault in possible.items() if fault}


@dataclass(frozen=True, kw_only=True)
class LdapSettings:
    """An LDAP directory, Active Directory for one, and how people are found in it."""

    #: ldaps:// or ldap://, without a path.
    url: str
    #: Encrypts what begins with ldap://; only a directory on this machine may go without.
    start_tls: bool = True
    #: Certificates in PEM that sign the directory's; empty: those that this machine trusts.
    certificate_authority: str = ""
    #: As whom people are looked for, with the secret as password; empty: as nobody.
    bind_dn: str = ""
    base_dn: str
    #: With {login}.
    user_filter: str
    #: Its value is the directory's lasting name for somebody.
    id_attribute: str
    email_attribute: str
    #: Empty: `base_dn`.
    group_base_dn: str = ""
    #: With {dn} or {login}; empty: an entry says its groups itself.
    group_filter: str = ""

    kind = "ldap"

    @property
    def known_by(self) -> str:
        """As an LDAP URL (RFC 4516)."""
        return f"{self.url}/{self.base_dn}?{self.id_attribute}"

    def faults(self) -> Faults:
        possible = {
            "ldap.url": None
            if len(self.url) <= _MOST_URL_CHARACTERS and _DIRECTORY.fullmatch(self.url)
            else f"must be ldaps:// or ldap:// and a host, at most {_MOST_URL_CHARACTERS} characters",
            "ldap.certificateAuthority": _authority_fault(self.certificate_authority),
            "ldap.bindDn": text_fault(self.bind_dn, least=0),
            "ldap.baseDn": text_fault(self.base_dn),
            "ldap.userFilter": filter_fault(self.user_filter, LOGIN),
            "ldap.idAttribute": _attribute_fault(self.id_attribute),
            "ldap.emailAttribute": _attribute_fault(self.email_attribute),
            "ldap.groupBaseDn": text_fault(self.group_base_dn, least=0),
            "ldap.groupFilter": filter_fault(self.group_filter, DN, LOGIN) if self.group_filter else None,
        }
        return {name: fault for name, fault in possible.items() if fault}


#: One class a kind.
KindSettings = OidcSettings | LdapSettings | SamlSettings


def _url_fault(text: str) -> str | None:
    if len(text) <= _MOST_URL_CHARACTERS and text.isprintable() and not set(text) & set(" ?#\\@"):
        return None
    return f"must be an address of at most {_MOST_URL_CHARACTERS} characters without a query"


def text_fault(text: str, *, least: int = 1, most: int = MOST_CHARACTERS) -> str | None:
    if least <= len(text) <= most and text.isprintable():
        return None
    return f"must be {least} to {most} printable characters"


def _certificates_fault(certificates: Sequence[str]) -> str | None:
    if not 0 < len(certificates) <= _MOST_CERTIFICATES or max(map(len, certificates)) > _MOST_CERTIFICATE_CHARACTERS:
        return f"must be 1 to {_MOST_CERTIFICATES} certificates of at most {_MOST_CERTIFICATE_CHARACTERS} characters"
    for number, certificate in enumerate(certificates, start=1):
        try:
            read_certificate(certificate)
        except UnusableCertificate as error:
            return f"number {number} {error}"
    return None


def _attribute_fault(text: str) -> str | None:
    return None if _ATTRIBUTE.fullmatch(text) else "must be the name of an attribute"


def _authority_fault(text: str) -> str | None:
    if len(text) > _MOST_AUTHORITY_CHARACTERS or not text.isascii():
        return f"must be certificates in PEM, at most {_MOST_AUTHORITY_CHARACTERS} characters"
    try:
        if text and len(read_authorities(text)) > _MOST_CERTIFICATES:
            return f"must be at most {_MOST_CERTIFICATES} certificates"
    except UnusableCertificate as error:
        return str(error)
    return None
