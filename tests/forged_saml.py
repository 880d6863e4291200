"""Answers of SAML providers, honest and forged: built, and signed for real, field by field."""

import base64
import copy
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.signer import XMLSigner
from yarl import URL

from services.auth.saml_documents import NAMES, PERSISTENT, named
from tests.certificates import PrivateKey, certificate_of

ENTITY_ID = "https://idp.example.com/metadata"
SIGN_IN_URL = "https://idp.example.com/sso?idpid=1"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
FOREIGN_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
SUBJECT = "id of eve"
EXC_C14N = "http://www.w3.org/2001/10/xml-exc-c14n#"


def pem_of(key: PrivateKey, life: timedelta = timedelta(hours=1)) -> str:
    """Of a certificate of the key, signed by itself."""
    return certificate_of(key, "idp", life).public_bytes(Encoding.PEM).decode()


def _unchanged(root: etree._Element) -> etree._Element:
    return root


@dataclass(kw_only=True)
class Answer:
    """What is said where; honest by default."""

    acs_url: str
    audience: str
    request_id: str
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    #: What is said otherwise.
    destination: str | None = None
    recipient: str | None = None
    response_to: str | None = None
    confirmed_to: str | None = None
    response_version: str = "2.0"
    version: str = "2.0"
    issuer: str = ENTITY_ID
    status: str = '<samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/>'
    subject: str = f'<saml:NameID Format="{PERSISTENT}">{SUBJECT}</saml:NameID>'
    method: str = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
    confirmed_until: str | None = None
    conditions: str | None = None
    since: str | None = None
    until: str | None = None
    statement: str = '<saml:AuthnStatement AuthnInstant="2026-01-01T00:00:00Z"/>'
    attributes: Mapping[str, Sequence[str]] = field(
        default_factory=lambda: {"email": ["eve@example.com"], "groups": ["staff", "bosses"]}
    )
    further: str = ""
    #: Of the assertion, the response, or neither.
    signs: str = "assertion"
    key: PrivateKey = KEY
    method_of_signature: SignatureMethod = SignatureMethod.RSA_SHA256
    digest: DigestAlgorithm = DigestAlgorithm.SHA256
    c14n: str = EXC_C14N
    #: Between building and signing, and after it.
    before: Callable[[etree._Element], etree._Element] = _unchanged
    after: Callable[[etree._Element], etree._Element] = _unchanged

    def xml(self) -> bytes:
        root = self.before(etree.fromstring(self._text()))
        if self.signs == "response":
            root = self._signed(root)
        elif self.signs == "assertion":
            assertion = next(root.iterfind("saml:Assertion", NAMES))
            root.replace(assertion, self._signed(assertion))
        return etree.tostring(self.after(root))

    def encoded(self) -> str:
        """`SAMLResponse`."""
        return base64.b64encode(self.xml()).decode()

    def _signed(self, element: etree._Element) -> etree._Element:
        return signed(element, self.key, self.method_of_signature, self.digest, self.c14n)

    def _moment(self, said: str | None, step: timedelta) -> str:
        return (self.now + step).isoformat().replace("+00:00", "Z") if said is None else said

    def _text(self) -> str:
        response_to, confirmed_to = self.response_to or self.request_id, self.confirmed_to or self.request_id
        conditions = self.conditions
        if conditions is None:
            conditions = restricted(self.audience)
        since = self._moment(self.since, timedelta())
        until = self._moment(self.until, timedelta(minutes=5))
        confirmed_until = self._moment(self.confirmed_until, timedelta(minutes=5))
        return f"""<samlp:Response xmlns:samlp="{NAMES["samlp"]}" xmlns:saml="{NAMES["saml"]}" ID="_response"
  Version="{self.response_version}" Destination="{self.destination or self.acs_url}" InResponseTo="{response_to}">
  <saml:Issuer>{self.issuer}</saml:Issuer>
  <samlp:Status>{self.status}</samlp:Status>
  <saml:Assertion ID="_assertion" Version="{self.version}" IssueInstant="{since}">
    <saml:Issuer>{self.issuer}</saml:Issuer>
    <saml:Subject>{self.subject}
      <saml:SubjectConfirmation Method="{self.method}">
        <saml:SubjectConfirmationData InResponseTo="{confirmed_to}" Recipient="{self.recipient or self.acs_url}"
          NotOnOrAfter="{confirmed_until}"/>
      </saml:SubjectConfirmation>
    </saml:Subject>
    <saml:Conditions NotBefore="{since}" NotOnOrAfter="{until}">{conditions}</saml:Conditions>
    {self.statement}
    <saml:AttributeStatement>{"".join(map(_attribute, self.attributes.items()))}</saml:AttributeStatement>
  </saml:Assertion>{self.further}
</samlp:Response>"""


class _Signer(XMLSigner):
    """Signs with SHA-1 too, as attackers may."""

    def check_deprecated_methods(self) -> None:
        """There is nothing that a forger may not use."""


def signed(
    element: etree._Element,
    key: PrivateKey,
    method: SignatureMethod = SignatureMethod.RSA_SHA256,
    digest: DigestAlgorithm = DigestAlgorithm.SHA256,
    c14n: str = EXC_C14N,
) -> etree._Element:
    """A copy with a signature in it."""
    signer = _Signer(signature_algorithm=method, digest_algorithm=digest, c14n_algorithm=c14n)
    alone = etree.fromstring(etree.tostring(element, with_tail=False))
    return signer.sign(alone, key=key, cert=[pem_of(key)], reference_uri=f"#{element.get('ID')}")


def asked(authorization_url: str) -> etree._Element:
    """The request that a browser takes to its provider."""
    deflated = base64.b64decode(URL(authorization_url).query["SAMLRequest"])
    return etree.fromstring(zlib.decompress(deflated, wbits=-15))


def restricted(*audiences: str) -> str:
    """For these alone."""
    allowed = "".join(f"<saml:Audience>{audience}</saml:Audience>" for audience in audiences)
    return f"<saml:AudienceRestriction>{allowed}</saml:AudienceRestriction>"


def _attribute(attribute: tuple[str, Sequence[str]]) -> str:
    name, values = attribute
    inner = "".join(f"<saml:AttributeValue>{value}</saml:AttributeValue>" for value in values)
    return f'<saml:Attribute Name="{name}">{inner}</saml:Attribute>'


# ---- signature wrapping: each makes an answer that says something else beside what was signed, of an honest one


def _evil(signed: etree._Element) -> etree._Element:
    """A copy that names somebody else, without the signature."""
    made = copy.deepcopy(signed)
    for signature in made.findall(".//ds:Signature", NAMES):
        parent = signature.getparent()
        assert parent is not None
        parent.remove(signature)
    for name in made.iter(named("saml", "NameID")):
        name.text = "id of the boss"
    made.set("ID", "_evil")
    return made


def _assertion(root: etree._Element) -> etree._Element:
    [found] = root.iterfind("saml:Assertion", NAMES)
    return found


def _signature(element: etree._Element) -> etree._Element:
    [found] = element.iterfind("ds:Signature", NAMES)
    return found


def _without_signature(element: etree._Element) -> etree._Element:
    made = copy.deepcopy(element)
    made.remove(_signature(made))
    return made


def _in_object(signature: etree._Element, inner: etree._Element) -> etree._Element:
    etree.SubElement(signature, named("ds", "Object")).append(inner)
    return signature


def response_in_its_signature(root: etree._Element) -> etree._Element:
    """XSW 1: an own response around the signature, in which the signed one lies."""
    evil = _evil(root)
    evil.insert(0, _in_object(copy.deepcopy(_signature(root)), _without_signature(root)))
    return evil


def response_beside_its_signature(root: etree._Element) -> etree._Element:
    """XSW 2: the signed response lies beside the signature in an own one."""
    evil = _evil(root)
    evil.insert(0, copy.deepcopy(_signature(root)))
    evil.insert(1, _without_signature(root))
    return evil


def assertion_before(root: etree._Element) -> etree._Element:
    """XSW 3: an own assertion before the signed one."""
    root.insert(0, _evil(_assertion(root)))
    return root


def assertion_around(root: etree._Element) -> etree._Element:
    """XSW 4: an own assertion around the signed one."""
    signed = _assertion(root)
    evil = _evil(signed)
    root.replace(signed, evil)
    evil.append(signed)
    return root


def assertion_with_its_signature(root: etree._Element) -> etree._Element:
    """XSW 5: the signature in an own assertion, what it signs at the end."""
    signed = _assertion(root)
    evil = _evil(signed)
    evil.insert(1, copy.deepcopy(_signature(signed)))
    root.replace(signed, evil)
    root.append(_without_signature(signed))
    return root


def assertion_with_signed_one_in_its_signature(root: etree._Element) -> etree._Element:
    """XSW 6: the signature in an own assertion, what it signs in the signature."""
    signed = _assertion(root)
    evil = _evil(signed)
    evil.insert(1, _in_object(copy.deepcopy(_signature(signed)), _without_signature(signed)))
    root.replace(signed, evil)
    return root


def assertion_in_extensions(root: etree._Element) -> etree._Element:
    """XSW 7: an own assertion where anything may stand."""
    extensions = etree.Element(named("samlp", "Extensions"))
    extensions.append(_evil(_assertion(root)))
    root.insert(0, extensions)
    return root


def signed_assertion_in_object(root: etree._Element) -> etree._Element:
    """XSW 8: an own assertion with the same id, the signed one in the signature."""
    signed = _assertion(root)
    evil = _evil(signed)
    evil.set("ID", signed.get("ID", ""))
    evil.insert(1, _in_object(copy.deepcopy(_signature(signed)), _without_signature(signed)))
    root.replace(signed, evil)
    return root


def signed_assertion_in_attribute(root: etree._Element) -> etree._Element:
    """The signature in an own assertion, and what it signs, by another name, deep in that one."""
    signed = _assertion(root)
    evil = _evil(signed)
    evil.insert(1, copy.deepcopy(_signature(signed)))
    [value] = evil.findall(".//saml:AttributeValue", NAMES)[:1]
    value.append(_without_signature(signed))
    root.replace(signed, evil)
    return root
