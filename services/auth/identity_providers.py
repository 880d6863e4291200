"""Identity providers of tenants: whom a tenant takes from them, as what, and whom they vouch for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Generic, NewType, TypeVar

from chassis.errors import Invalid
from services.auth.domain import Role, TenantId, User, UserId, name_fault
from services.auth.provider_settings import MOST_CHARACTERS, Faults, KindSettings, LdapSettings, text_fault

ProviderId = NewType("ProviderId", str)

#: How long a browser may take at its provider, and then until it redeems its grant.
SIGN_ON_LIFE = timedelta(minutes=10)
GRANT_LIFE = timedelta(minutes=1)

#: Of one tenant.
MOST_PROVIDERS = 20

_MOST_MAPPINGS = 100
_MOST_DOMAINS = 100
_MOST_SECRET_CHARACTERS = 1000
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")

_Kind_co = TypeVar("_Kind_co", bound=KindSettings, covariant=True)


@dataclass(frozen=True, kw_only=True)
class RoleMapping:
    """Who has the value gets at least the role."""

    value: str
    role: Role


@dataclass(frozen=True, kw_only=True)
class AdmissionRules:
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
            "roleClaim": text_fault(self.role_claim, least=0),
            "roleMappings": _role_fault(roles) or _mappings_fault(self.role_mappings),
        }
        return {name: fault for name, fault in possible.items() if fault}


@dataclass(frozen=True, kw_only=True)
class ProviderWish:
    """What somebody wants a provider to be."""

    name: str
    enabled: bool
    admission: AdmissionRules
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
    admission: AdmissionRules
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


def _names_of(settings: AdmissionRules | KindSettings) -> Sequence[str]:
    return [member.name for member in fields(settings)]


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def secret_owner(provider_id: ProviderId) -> str:
    """To which the secret of a provider is bound at rest."""
    return f"identity provider {provider_id}"


def _role_fault(roles: Sequence[Role]) -> str | None:
    """Owners are made by owners: a provider cannot make one."""
    return "must not be owner: make owners by hand" if Role.OWNER in roles else None


def _mappings_fault(mappings: Sequence[RoleMapping]) -> str | None:
    if len(mappings) > _MOST_MAPPINGS or any(text_fault(mapping.value) for mapping in mappings):
        return f"must be at most {_MOST_MAPPINGS} values of at most {MOST_CHARACTERS} characters"
    return None
