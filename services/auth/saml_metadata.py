"""Metadata of SAML 2.0: what a provider says of itself, and what it is to know of us."""

from dataclasses import dataclass

from lxml import etree

from services.auth.saml_documents import (
    NAMES,
    PERSISTENT,
    POST_BINDING,
    REDIRECT_BINDING,
    UnreadableXml,
    named,
    parsed,
)

_PROTOCOL = NAMES["samlp"]
_USES_TO_SIGN = (None, "signing")


@dataclass(frozen=True, kw_only=True)
class ServiceProvider:
    """Who we are to one provider."""

    entity_id: str
    #: Where browsers bring its answers.
    acs_url: str

    @property
    def metadata(self) -> bytes:
        """A document in UTF-8."""
        root = etree.Element(named("md", "EntityDescriptor"), entityID=self.entity_id, nsmap={"md": NAMES["md"]})
        role = etree.SubElement(
            root,
            named("md", "SPSSODescriptor"),
            AuthnRequestsSigned="false",
            WantAssertionsSigned="true",
            protocolSupportEnumeration=_PROTOCOL,
        )
        etree.SubElement(role, named("md", "NameIDFormat")).text = PERSISTENT
        etree.SubElement(
            role,
            named("md", "AssertionConsumerService"),
            Binding=POST_BINDING,
            Location=self.acs_url,
            index="0",
            isDefault="true",
        )
        return etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)


@dataclass(frozen=True, kw_only=True)
class ProviderMetadata:
    """What is read of a provider's metadata; members that it does not say are empty."""

    entity_id: str
    sign_in_url: str
    #: In base64.
    certificates: tuple[str, ...]


def read_metadata(document: str) -> ProviderMetadata:
    """Of one provider. Who pastes it vouches for it: a signature in it is not looked at. Raises UnreadableXml."""
    root = parsed(document.strip().encode())
    role = root.find("md:IDPSSODescriptor", NAMES)
    if root.tag != named("md", "EntityDescriptor") or role is None:
        raise UnreadableXml("it is no metadata of one identity provider")
    services = role.iterfind("md:SingleSignOnService", NAMES)
    redirects = [found.get("Location", "") for found in services if found.get("Binding") == REDIRECT_BINDING]
    keys = [key for key in role.iterfind("md:KeyDescriptor", NAMES) if key.get("use") in _USES_TO_SIGN]
    certificates = [found.text or "" for key in keys for found in key.iterfind(".//ds:X509Certificate", NAMES)]
    return ProviderMetadata(
        entity_id=root.get("entityID", ""),
        sign_in_url=next(iter(redirects), ""),
        certificates=tuple("".join(certificate.split()) for certificate in certificates),
    )
