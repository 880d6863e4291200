"""Identity providers of tenants: what is set of them, and what follows from it for whoever they vouch for."""

import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Generic, NewType, TypeVar

from chassis.errors import Invalid
from services.auth.domain import Role, TenantId, User, UserId, name_fault
from services.auth.ldap_filters import DN, LOGIN, filter_fault
from services.auth.signing_certificates import UnusableCertificate, read_certificate

ProviderId = NewType("ProviderId", str)

#: How long a browser may take at its provider, and then until it redeems its grant.
SIGN_ON_LIFE = timedelta(minutes=10)
GRANT_LIFE = timedelta(minutes=1)

#: Of one tenant.
MOST_PROVIDERS = 20

_MOST_MAPPINGS = 100
_MOST_DOMAINS = 100
_MOST_SCOPES = 20
_MOST_CHARACTERS = 255
_MOST_URL_CHARACTERS = 1000
_MOST_SECRET_CHARACTERS = 1000
#: For the one that signs, and those that it is about to be followed by.
_MOST_CERTIFICATES = 10
_MOST_CERTIFICATE_CHARACTERS = 10_000
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
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
            "oidc.clientId": _text_fault(self.client_id),
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
            "saml.entityId": _text_fault(self.entity_id, most=_MOST_URL_CHARACTERS),
            "saml.signInUrl": _text_fault(self.sign_in_url, most=_MOST_URL_CHARACTERS),
            "saml.certificates": _certificates_fault(self.certificates),
            "saml.subjectAttribute": _text_fault(self.subject_attribute, least=0),
            "saml.emailAttribute": _text_fault(self.email_attribute),
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
            "ldap.bindDn": _text_fault(self.bind_dn, least=0),
            "ldap.baseDn": _text_fault(self.base_dn),
            "ldap.userFilter": filter_fault(self.user_filter, LOGIN),
            "ldap.idAttribute": _attribute_fault(self.id_attribute),
            "ldap.emailAttribute": _attribute_fault(self.email_attribute),
            "ldap.groupBaseDn": _text_fault(self.group_base_dn, least=0),
            "ldap.groupFilter": filter_fault(self.group_filter, DN, LOGIN) if self.group_filter else None,
        }
        return {name: fault for name, fault in possible.items() if fault}


#: One class a kind.
KindSettings = OidcSettings | LdapSettings | SamlSettings

_Kind_co = TypeVar("_Kind_co", bound=KindSettings, covariant=True)


@dataclass(frozen=True, kw_only=True)
class RoleMapping:
    """Who has the value gets at least the role."""

    value: str
    role: Role


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Whom a tenant takes from a provider, and as what."""

    #: Of the addresses that may sign in, in lower case; empty: any.
    email_domains: tuple[str, ...] = ()
    #: None: who has no mapped value may not sign in.
    default_role: Role | None = None
    #: The claim or attribute whose values are mapped; empty: roles are given by hand.
    role_claim: str = ""
    role_mappings: tuple[RoleMapping, ...] = ()

    def takes_address(self, email: str) -> bool:
        return not self.email_domains or email.rpartition("@")[2].lower() in self.email_domains

    def role_of(self, groups: Sequence[str]) -> Role | None:
        """The highest that a value is mapped to, else the default; None: may not sign in."""
        mapped = [mapping.role for mapping in self.role_mappings if mapping.value in groups]
        return max(mapped, default=self.default_role)

    @property
    def decides_roles(self) -> bool:
        """Whether roles follow the provider at each sign-in, rather than what members are given by hand."""
        return bool(self.role_claim and self.role_mappings)

    def faults(self) -> Faults:
        roles = [mapping.role for mapping in self.role_mappings]
        possible = {
            "emailDomains": None
            if len(self.email_domains) <= _MOST_DOMAINS and all(map(_DOMAIN.fullmatch, self.email_domains))
            else f"must be at most {_MOST_DOMAINS} domains such as example.com, in lower case",
            "defaultRole": _role_fault([self.default_role] if self.default_role else []),
            "roleClaim": _text_fault(self.role_claim, least=0),
            "roleMappings": _role_fault(roles) or _mappings_fault(self.role_mappings),
        }
        return {name: fault for name, fault in possible.items() if fault}


@dataclass(frozen=True, kw_only=True)
class ProviderWish:
    """What somebody wants a provider to be."""

    name: str
    enabled: bool
    admission: Admission
    settings: KindSettings
    #: None: as before; none where there was none.
    secret: str | None = field(repr=False)

    def require_sound(self) -> None:
        """Raises Invalid with every fault."""
        faults = {**self.admission.faults(), **self.settings.faults()}
        if fault := name_fault(self.name):
            faults["name"] = fault
        if self.secret is not None and not 0 < len(self.secret) <= _MOST_SECRET_CHARACTERS:
            faults[f"{self.settings.kind}.secret"] = f"must have 1 to {_MOST_SECRET_CHARACTERS} characters"
        if faults:
            raise Invalid.fields(faults)


@dataclass(frozen=True, kw_only=True)
class ProviderOf(Generic[_Kind_co]):
    """A provider of one tenant, of one kind."""

    id: ProviderId
    tenant_id: TenantId
    name: str
    enabled: bool
    admission: Admission
    settings: _Kind_co
    sealed_secret: bytes | None = field(repr=False)
    created_at: datetime
    updated_at: datetime
    #: When the token was made with which it says who has left; None: there is none.
    provisioning_since: datetime | None = None

    def require_complete(self) -> None:
        """Raises Invalid where the name to bind with has no password: such a bind would prove nothing."""
        if isinstance(self.settings, LdapSettings) and self.settings.bind_dn and self.sealed_secret is None:
            raise Invalid.fields({"ldap.bindPassword": "is required with bindDn"})

    @property
    def secret_owner(self) -> str:
        """To which the secret is bound at rest."""
        return secret_owner(self.id)


#: Of any kind.
IdentityProvider = ProviderOf[KindSettings]


@dataclass(frozen=True, kw_only=True)
class Vouched:
    """Somebody whom a provider vouches for."""

    #: The provider's lasting name for them.
    subject: str
    #: Empty where the provider says none that can be believed.
    email: str
    #: Values of the claim or attribute that roles are mapped from.
    groups: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class RemovedMember:
    """Somebody whom a provider has brought, and who is kept out."""

    user: User
    provider_id: ProviderId
    #: By an admin, or for good by the provider.
    removed_at: datetime | None
    #: By the provider, which may take it back.
    deactivated_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class ProvisionedAccount:
    """An account as its own provider may see it."""

    user: User
    #: The provider's lasting name for them.
    subject: str
    #: False: the provider has said that they have left.
    active: bool
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Sought:
    """What accounts must have to be found; None: anything."""

    user_id: UserId | None = None
    #: Whatever its capitals.
    email: str | None = None
    subject: str | None = None


def changed_members(before: IdentityProvider, after: IdentityProvider) -> Sequence[str]:
    """The names of what differs, as faults name it, with `oidc.secret` where a secret was set anew."""
    kind = after.settings.kind
    compared: Sequence[tuple[str, Sequence[str], object, object]] = [
        ("", ("name", "enabled"), before, after),
        ("", _names_of(after.admission), before.admission, after.admission),
        (f"{kind}.", _names_of(after.settings), before.settings, after.settings),
    ]
    changed = [
        place + _camel_case(name)
        for place, names, old, new in compared
        for name in names
        if getattr(old, name) != getattr(new, name)
    ]
    return changed if before.sealed_secret == after.sealed_secret else [*changed, f"{kind}.secret"]


def _names_of(settings: Admission | KindSettings) -> Sequence[str]:
    return [member.name for member in fields(settings)]


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def secret_owner(provider_id: ProviderId) -> str:
    """To which the secret of a provider is bound at rest."""
    return f"identity provider {provider_id}"


def values_of(claims: Mapping[str, object], claim: str) -> Sequence[str]:
    """A claim's texts: a list of them, or one; `.` leads into objects, unless a claim has that very name."""
    found: object = claims.get(claim) if claim in claims else claims
    if found is claims:
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return [found]
    return [value for value in found if isinstance(value, str)] if isinstance(found, list | tuple) else []


def _url_fault(text: str) -> str | None:
    if len(text) <= _MOST_URL_CHARACTERS and text.isprintable() and not set(text) & set(" ?#\\@"):
        return None
    return f"must be an address of at most {_MOST_URL_CHARACTERS} characters without a query"


def _text_fault(text: str, *, least: int = 1, most: int = _MOST_CHARACTERS) -> str | None:
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
    fault = f"must be certificates in PEM, at most {_MOST_AUTHORITY_CHARACTERS} characters"
    if len(text) > _MOST_AUTHORITY_CHARACTERS or not text.isascii():
        return fault
    try:
        if text:
            ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        return fault
    return None


def _role_fault(roles: Sequence[Role]) -> str | None:
    """Owners are made by owners: a provider cannot make one."""
    return "must not be owner: make owners by hand" if Role.OWNER in roles else None


def _mappings_fault(mappings: Sequence[RoleMapping]) -> str | None:
    if len(mappings) > _MOST_MAPPINGS or any(_text_fault(mapping.value) for mapping in mappings):
        return f"must be at most {_MOST_MAPPINGS} values of at most {_MOST_CHARACTERS} characters"
    return None
