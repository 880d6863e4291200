"""XML of SAML: read so that no document asks anything of its reader, and believed as far as it is signed."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, cast

from cryptography import x509
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, VerifyResult, XMLVerifier

#: Of a document, in bytes.
MOST_BYTES = 192 << 10
#: Of a document, begun and ended. A thousand groups have two thousand.
_MOST_TAGS = 6000
#: Of one tag, and in scope: canonicalization takes quadratic time in these, for each of the elements.
_MOST_DECLARATIONS = 32
_MOST_IN_SCOPE = 64
_MOST_DEPTH = 20
_MOST_ATTRIBUTES = 100
#: Of what is canonicalized before anybody knows who has signed it.
_MOST_SIGNED_PARTS = 20
_MOST_TRANSFORMS = 2
_MOST_PREFIXES = 32
_INCLUSIVE: Final = "{http://www.w3.org/2001/10/xml-exc-c14n#}InclusiveNamespaces"

NAMES: Final = {
    "saml": "urn:oasis:names:tc:SAML:2.0:assertion",
    "samlp": "urn:oasis:names:tc:SAML:2.0:protocol",
    "md": "urn:oasis:names:tc:SAML:2.0:metadata",
    "ds": "http://www.w3.org/2000/09/xmldsig#",
}
POST_BINDING: Final = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
REDIRECT_BINDING: Final = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
PERSISTENT: Final = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"

#: Signatures are direct children of what they sign, and nothing is signed with SHA-1 or with a shared secret.
_SIGNATURES = SignatureConfiguration(
    location="./",
    signature_methods=frozenset(
        {
            SignatureMethod.RSA_SHA256,
            SignatureMethod.RSA_SHA384,
            SignatureMethod.RSA_SHA512,
            SignatureMethod.SHA256_RSA_MGF1,
            SignatureMethod.SHA384_RSA_MGF1,
            SignatureMethod.SHA512_RSA_MGF1,
            SignatureMethod.ECDSA_SHA256,
            SignatureMethod.ECDSA_SHA384,
            SignatureMethod.ECDSA_SHA512,
        }
    ),
    digest_algorithms=frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512}),
)


class UnreadableXml(ValueError):
    """What is no XML, or more of it than is read."""


class NotSigned(ValueError):
    """What none of the keys has signed, or not in a way that can be believed."""


def named(prefix: str, name: str) -> str:
    """A name of one of `NAMES`, as lxml writes it."""
    return f"{{{NAMES[prefix]}}}{name}"


def parsed(document: bytes) -> etree._Element:
    """The root. UTF-8 whatever it says of itself, and never with a document type. Raises UnreadableXml."""
    # Before anything is parsed: without one there are no entities, which is what documents attack readers with.
    if len(document) > MOST_BYTES or b"<!DOCTYPE" in document:
        raise UnreadableXml("it is larger than it may be, or declares a document type")
    if max(tag.count(b"xmlns") for tag in document.split(b"<")) > _MOST_DECLARATIONS:
        raise UnreadableXml("it declares more namespaces than anybody needs")
    parser = etree.XMLParser(encoding="utf-8", resolve_entities=False, no_network=True, huge_tree=False)
    if document.count(b"<") > _MOST_TAGS:
        raise UnreadableXml("it has more elements than anybody needs")
    try:
        root = etree.fromstring(document, parser)
    except etree.XMLSyntaxError as error:
        raise UnreadableXml("it is no XML") from error
    _require_narrow(root)
    return root


def parsed_base64(document: str) -> etree._Element:
    """The same of a document in base64, perhaps in lines. Raises UnreadableXml."""
    try:
        decoded = base64.b64decode("".join(document.split()), validate=True)
    except ValueError as error:
        raise UnreadableXml("it is not in base64") from error
    return parsed(decoded)


def _require_narrow(root: etree._Element) -> None:
    """Raises UnreadableXml."""
    depth = in_scope = 0
    for event, _ in etree.iterwalk(root, events=("start", "end", "start-ns", "end-ns")):
        depth += (event == "start") - (event == "end")
        in_scope += (event == "start-ns") - (event == "end-ns")
        if depth > _MOST_DEPTH or in_scope > _MOST_IN_SCOPE:
            raise UnreadableXml("it is deeper than anybody needs, or has more namespaces")
    if any(len(element.attrib) > _MOST_ATTRIBUTES for element in root.iter()):
        raise UnreadableXml("it has a tag with more attributes than anybody needs")


def is_signed(element: etree._Element) -> bool:
    """Whether something stands where its signature would."""
    return element.find("ds:Signature", NAMES) is not None


def signed_part(element: etree._Element, certificates: Sequence[x509.Certificate], at: datetime) -> etree._Element:
    """The element as the key of one of the certificates has signed it, made anew of the bytes that were signed.

    All of it, by its own signature, which is a direct child. At a moment at which the certificate is valid. Raises
    NotSigned.
    """
    for signature in element.iterfind("ds:Signature", NAMES):
        for key_info in signature.findall("ds:KeyInfo", NAMES):
            signature.remove(key_info)  # which keys there are is ours to say, and nothing signs this
        _require_simple(signature)
    # Alone: what a signature refers to is looked for in here, and nowhere else in the document.
    alone = etree.tostring(element, with_tail=False)
    rules = replace(_SIGNATURES, verification_time=at)
    reason: Exception | None = None
    for certificate in certificates:
        try:
            found = XMLVerifier().verify(alone, x509_cert=certificate, id_attribute="ID", expect_config=rules)
        except (SignXMLException, etree.LxmlError, ValueError, TypeError) as error:
            reason = error
            continue
        return _about(element, cast("VerifyResult", found).signed_xml)
    raise NotSigned("it is signed by none of the keys that it may be signed by") from reason


def _require_simple(signature: etree._Element) -> None:
    """That little is to be done before it is known who has signed. Raises NotSigned."""
    infos = signature.findall("ds:SignedInfo", NAMES)
    parts = [part for info in infos for part in info.iter()]
    transforms = [part for part in parts if part.tag == named("ds", "Transform")]
    lists = [part for part in parts if part.tag == _INCLUSIVE]
    if (
        len(infos) != 1
        or len(parts) > _MOST_SIGNED_PARTS
        or len(infos[0].findall("ds:Reference", NAMES)) != 1
        or len(transforms) > _MOST_TRANSFORMS
        or any(child.tag != _INCLUSIVE for transform in transforms for child in transform)
        or any(len(found.get("PrefixList", "").split()) > _MOST_PREFIXES for found in lists)
    ):
        raise NotSigned("its signature is made in a way that nobody needs")


def _about(element: etree._Element, signed: etree._Element | None) -> etree._Element:
    """What was signed, where it is the element and no other. Raises NotSigned."""
    if signed is None or signed.tag != element.tag or signed.get("ID") != element.get("ID"):
        raise NotSigned("its signature is about something else")
    return signed
