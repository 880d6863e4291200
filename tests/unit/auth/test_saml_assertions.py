"""What an answer of a SAML provider must be: honest ones are believed, and no forged one is."""

import base64
import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.verifier import XMLVerifier

from services.auth.errors import SignOnFailed
from services.auth.provider_settings import SamlSettings
from services.auth.saml_assertions import Expected, vouched_by
from services.auth.saml_documents import MOST_BYTES, NAMES, PERSISTENT
from services.auth.saml_metadata import ServiceProvider
from services.auth.signing_certificates import UnusableCertificate, read_certificate
from tests import forged_saml as forged
from tests.forged_saml import (
    EC_KEY,
    ENTITY_ID,
    FOREIGN_KEY,
    KEY,
    SIGN_IN_URL,
    SUBJECT,
    Answer,
    pem_of,
    restricted,
    signed,
)

US = ServiceProvider(
    entity_id="https://metrics.example.com/api/v1/auth/sso/1/metadata",
    acs_url="https://metrics.example.com/api/v1/auth/sso/1/callback",
)
INCLUSIVE = "{http://www.w3.org/2001/10/xml-exc-c14n#}InclusiveNamespaces"
TRANSIENT = PERSISTENT.replace("persistent", "transient")
NOW = datetime.now(UTC)
EXPECTED = Expected(
    settings=SamlSettings(entity_id=ENTITY_ID, sign_in_url=SIGN_IN_URL, certificates=(pem_of(EC_KEY), pem_of(KEY))),
    role_attribute="groups",
    us=US,
    request_id="_request",
    now=NOW,
)


def answer(**changed: Any) -> Answer:
    return Answer(acs_url=US.acs_url, audience=US.entity_id, request_id="_request", now=NOW, **changed)


def refusal(made: str, expected: Expected = EXPECTED) -> str:
    with pytest.raises(SignOnFailed) as error:
        vouched_by(made, expected)
    assert (error.value.code, error.value.http_status) == ("SSO_FAILED", 401)
    return str(error.value.message)


@pytest.mark.parametrize(
    "honest",
    [
        {},
        {"signs": "response"},
        {"key": EC_KEY, "method_of_signature": SignatureMethod.ECDSA_SHA256},
        {"method_of_signature": SignatureMethod.SHA512_RSA_MGF1, "digest": DigestAlgorithm.SHA512},
        {"c14n": "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"},
        {"since": (NOW + timedelta(seconds=50)).isoformat()},  # a clock that is ahead
        {"until": NOW.replace(tzinfo=None).isoformat()},  # and one that is behind, and says no zone
    ],
)
def test_an_honest_answer_is_believed(honest: dict[str, Any]) -> None:
    vouched = vouched_by(answer(**honest).encoded(), EXPECTED)
    assert (vouched.subject, vouched.email, vouched.groups) == (SUBJECT, "eve@example.com", ["staff", "bosses"])


def test_an_attribute_may_name_people_and_their_addresses_and_groups() -> None:
    attributes = {"uid": ["17"], "urn:oid:0.9.2342.19200300.100.1.3": ["eve@example.org"], "member.of": [" ops "]}
    settings = replace(EXPECTED.settings, subject_attribute="uid", email_attribute="urn:oid:0.9.2342.19200300.100.1.3")
    made = answer(subject="<saml:NameID>any</saml:NameID>", attributes=attributes).encoded()
    vouched = vouched_by(made, replace(EXPECTED, settings=settings, role_attribute="member.of"))
    assert (vouched.subject, vouched.email, vouched.groups) == ("17", "eve@example.org", ["ops"])


def test_groups_that_are_not_all_read_sign_nobody_in() -> None:
    assert vouched_by(answer(attributes={"groups": ["ops"] * 1000}).encoded(), EXPECTED).groups == ["ops"] * 1000
    assert "more groups" in refusal(answer(attributes={"groups": ["ops"] * 1001}).encoded())


@pytest.mark.parametrize(
    "said", [{}, {"email": []}, {"email": ["nobody"]}, {"email": ["<saml:NameID>a@b.c</saml:NameID>"]}]
)
def test_no_address_is_believed_where_none_is_said(said: dict[str, Any]) -> None:
    assert vouched_by(answer(attributes=said).encoded(), EXPECTED).email == ""


WRAPPINGS: list[tuple[Callable[[etree._Element], etree._Element], str]] = [
    (forged.response_in_its_signature, "response"),
    (forged.response_beside_its_signature, "response"),
    *(
        (wrapping, "assertion")
        for wrapping in (
            forged.assertion_before,
            forged.assertion_around,
            forged.assertion_with_its_signature,
            forged.assertion_with_signed_one_in_its_signature,
            forged.assertion_in_extensions,
            forged.signed_assertion_in_object,
            forged.signed_assertion_in_attribute,
        )
    ),
]


@pytest.mark.parametrize(("wrapping", "signs"), WRAPPINGS, ids=lambda value: getattr(value, "__name__", value))
def test_what_is_wrapped_around_a_signed_part_is_not_believed(
    wrapping: Callable[[etree._Element], etree._Element], signs: str
) -> None:
    assert vouched_by(answer(signs=signs).encoded(), EXPECTED).subject == SUBJECT
    refusal(answer(signs=signs, after=wrapping).encoded())


def test_a_signature_of_which_nobody_knows_what_it_is_about_is_not_believed() -> None:
    def same_id_inside(root: etree._Element) -> etree._Element:
        [statement] = root.findall("saml:Assertion/saml:AttributeStatement", NAMES)
        etree.SubElement(statement, "inner", ID="_assertion")
        return root

    assert "cannot be believed" in refusal(answer(after=same_id_inside).encoded())


def test_another_document_that_the_provider_has_signed_signs_no_assertion() -> None:
    """Such as its metadata, which everybody can read."""

    def beside_metadata(root: etree._Element) -> etree._Element:
        metadata = signed(etree.fromstring(f'<EntityDescriptor xmlns="{NAMES["md"]}" ID="_metadata"/>'), KEY)
        [assertion] = root.findall("saml:Assertion", NAMES)
        [signature] = metadata.findall("ds:Signature", NAMES)
        [value] = root.findall(".//saml:AttributeValue", NAMES)[:1]
        assertion.append(signature)
        value.append(metadata)
        return root

    assert "about something else" in refusal(answer(signs="neither", after=beside_metadata).encoded())


def changed_text(path: str, text: str) -> Callable[[etree._Element], etree._Element]:
    def change(root: etree._Element) -> etree._Element:
        [found] = root.findall(path, NAMES)[:1]
        found.text = text
        return root

    return change


@pytest.mark.parametrize(
    "forgery",
    [
        {"signs": "neither"},
        {"key": FOREIGN_KEY},  # with its own certificate in it
        {"after": changed_text(".//saml:NameID", "id of the boss")},
        {"after": changed_text(".//saml:AttributeValue", "boss@example.com")},
        {"after": changed_text(".//ds:SignatureValue", "")},
        {"after": changed_text(".//ds:SignatureValue", "====")},
        {"after": changed_text(".//ds:DigestValue", "")},
        {"method_of_signature": SignatureMethod.RSA_SHA1},
        {"digest": DigestAlgorithm.SHA1},
        {"signs": "response", "after": changed_text(".//saml:NameID", "id of the boss")},
    ],
)
def test_what_the_provider_has_not_signed_is_not_believed(forgery: dict[str, Any]) -> None:
    assert "cannot be believed" in refusal(answer(**forgery).encoded())


@pytest.mark.parametrize("signs", ["assertion", "response"])
def test_a_signature_by_a_shared_secret_is_not_believed(signs: str) -> None:
    """Everybody can read a certificate: it must not become the secret of a HMAC."""

    def by_certificate(root: etree._Element) -> etree._Element:
        for method in root.iter("{http://www.w3.org/2000/09/xmldsig#}SignatureMethod"):
            method.set("Algorithm", SignatureMethod.HMAC_SHA256.value)
        return root

    refusal(answer(signs=signs, after=by_certificate).encoded())


@pytest.mark.parametrize("certificate", [pem_of(KEY, timedelta(minutes=-30)), pem_of(FOREIGN_KEY)])
def test_a_certificate_that_has_expired_or_is_another_signs_for_nobody(certificate: str) -> None:
    settings = replace(EXPECTED.settings, certificates=(certificate,))
    assert "cannot be believed" in refusal(answer().encoded(), replace(EXPECTED, settings=settings))


def inserted(node: etree._Element) -> Callable[[etree._Element], etree._Element]:
    """Cuts a person's name in two, where a signature does not see it."""

    def insert(root: etree._Element) -> etree._Element:
        [name] = root.findall(".//saml:NameID", NAMES)
        assert name.text is not None
        name.text, node.tail = name.text[:5], name.text[5:]
        name.append(node)
        return root

    return insert


def test_a_name_that_is_cut_in_two_by_a_comment_is_not_believed() -> None:
    for node in (etree.Comment("cut"), etree.ProcessingInstruction("cut")):
        assert "comments" in refusal(answer(after=inserted(node)).encoded())
        assert "comments" in refusal(answer(before=inserted(node)).encoded())


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"response_version": "1.1"}, "no answer"),
        ({"destination": "https://other.example.com/callback"}, "somebody else"),
        ({"response_to": "_another"}, "another request"),
        ({"confirmed_to": "_another"}, "not about this sign-on"),
        ({"recipient": "https://other.example.com/callback"}, "not about this sign-on"),
        ({"method": "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key"}, "not about this sign-on"),
        ({"confirmed_until": (NOW - timedelta(seconds=61)).isoformat()}, "too late"),
        ({"status": ""}, "without a status"),
        ({"status": '<samlp:StatusCode Value="a:B"><samlp:StatusCode Value="a:No"/></samlp:StatusCode>'}, "answers No"),
        ({"issuer": "https://idp.example.org"}, "another issuer"),
        ({"version": "1.1"}, "another issuer"),
        ({"conditions": ""}, "somebody else"),
        ({"conditions": restricted("https://other.example.com")}, "somebody else"),
        ({"conditions": restricted(US.entity_id) + restricted("https://other.example.com")}, "somebody else"),
        ({"conditions": "<saml:Condition/>"}, "conditions"),
        ({"since": (NOW + timedelta(seconds=61)).isoformat()}, "not valid at this time"),
        ({"until": (NOW - timedelta(seconds=61)).isoformat()}, "not valid at this time"),
        ({"until": "soon"}, "times that are none"),
        ({"statement": ""}, "anybody signed in"),
        ({"statement": '<saml:AuthnStatement SessionNotOnOrAfter="2020-01-01T00:00:00Z"/>'}, "session is over"),
        ({"subject": ""}, "no lasting name"),
        ({"subject": "<saml:NameID>eve</saml:NameID>"}, "no lasting name"),
        ({"subject": f'<saml:NameID Format="{TRANSIENT}">eve</saml:NameID>'}, "no lasting name"),
        ({"subject": f'<saml:NameID Format="{PERSISTENT}" SPNameQualifier="a">eve</saml:NameID>'}, "no lasting name"),
        ({"subject": f'<saml:NameID Format="{PERSISTENT}" NameQualifier="a">eve</saml:NameID>'}, "no lasting name"),
        ({"subject": f'<saml:NameID Format="{PERSISTENT}">{"x" * 256}</saml:NameID>'}, "no lasting name"),
        ({"subject": f'<saml:NameID Format="{PERSISTENT}"> </saml:NameID>'}, "no lasting name"),
        ({"further": "<saml:EncryptedAssertion/>"}, "encrypted"),
        ({"further": "<saml:Assertion/>"}, "not one assertion"),
    ],
)  # fmt: skip
def test_what_an_answer_says_must_be_meant_for_this_sign_on(said: dict[str, Any], reason: str) -> None:
    assert reason in refusal(answer(**said).encoded())


def test_times_at_the_ends_of_the_calendar_are_times() -> None:
    ends = {"since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z", "confirmed_until": "9999-12-31T23:59:59Z"}
    assert vouched_by(answer(**ends).encoded(), EXPECTED).subject == SUBJECT
    assert "not valid at this time" in refusal(answer(until="0001-01-01T00:00:00Z").encoded())
    assert "not valid at this time" in refusal(answer(since="9999-12-31T23:59:59Z").encoded())


def test_a_confirmation_that_does_not_say_how_long_it_is_good_is_none() -> None:
    def without(name: str) -> Callable[[etree._Element], etree._Element]:
        def remove(root: etree._Element) -> etree._Element:
            [data] = root.findall(".//saml:SubjectConfirmationData", NAMES)
            del data.attrib[name]
            return root

        return remove

    for name in ("NotOnOrAfter", "InResponseTo", "Recipient"):
        assert "not about this sign-on" in refusal(answer(before=without(name)).encoded())


@pytest.mark.parametrize(
    "document",
    [
        b'<!DOCTYPE r [<!ENTITY a "1234567890">]><r>&a;</r>',
        b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>',
        '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE r [<!ENTITY a "1">]><r>&a;</r>'.encode("utf-16"),
        b'<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE r+AD4-<r/>',
        b"<r>&a;</r>",
        b"<r/>" + b" " * MOST_BYTES,
        b"<r" * 100_000,
        b"<r " + b" ".join(b'xmlns:n%d="u"' % number for number in range(33)) + b"/>",
        b"<r>" * 1000 + b"</r>" * 1000,
        b"",
        b"\x00",
        b"<r/>",
    ],
)
def test_no_document_asks_anything_of_its_reader(document: bytes) -> None:
    refusal(base64.b64encode(document).decode())


@pytest.mark.parametrize(
    "document",
    [
        b"<r>" * 21 + b"</r>" * 21,
        b"".join(b"<r " + b" ".join(b'xmlns:n%d="u"' % (of + n) for n in range(22)) + b">" for of in (0, 22, 44))
        + b"</r>" * 3,
        b"<r " + b" ".join(b'a%d="u"' % number for number in range(101)) + b"/>",
        b"<r>" + b"<e/>" * 6000 + b"</r>",
    ],
    ids=["levels", "namespaces in scope", "attributes", "elements"],
)
def test_what_takes_long_to_canonicalize_is_not_read(document: bytes) -> None:
    assert "cannot be read" in refusal(base64.b64encode(document).decode())


def within(path: str, tag: str, **attributes: str) -> Callable[[etree._Element], etree._Element]:
    def add(root: etree._Element) -> etree._Element:
        [found] = root.findall(path, NAMES)[:1]
        etree.SubElement(found, tag, attributes)
        return root

    return add


def twice(path: str) -> Callable[[etree._Element], etree._Element]:
    def double(root: etree._Element) -> etree._Element:
        [found] = root.findall(path, NAMES)[:1]
        found.addnext(copy.deepcopy(found))
        return root

    return double


@pytest.mark.parametrize(
    "after",
    [
        twice(".//ds:SignedInfo"),
        twice(".//ds:Reference"),
        twice(".//ds:Transform"),
        within(".//ds:Transform", "{http://www.w3.org/2002/06/xmldsig-filter2}XPath"),
        within(".//ds:SignedInfo/ds:SignatureMethod", INCLUSIVE, PrefixList=" ".join(map("n{}".format, range(33)))),
    ],
)
def test_little_is_done_before_it_is_known_who_has_signed(
    after: Callable[[etree._Element], etree._Element], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(XMLVerifier, "verify", lambda *_, **__: pytest.fail("verified"))
    assert "in a way that nobody needs" in refusal(answer(after=after).encoded())


@pytest.mark.parametrize("text", ["", "%%%", "é"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    assert "cannot be read" in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----",
        pem_of(rsa.generate_private_key(public_exponent=65537, key_size=1024)),  # noqa: S505 - it is refused
        pem_of(ec.generate_private_key(ec.SECP224R1())),
    ],
)
def test_a_certificate_whose_key_is_weak_or_none_is_refused(text: str) -> None:
    with pytest.raises(UnusableCertificate):
        read_certificate(text)


def test_a_certificate_that_was_taken_once_and_would_not_be_now_signs_nobody_in() -> None:
    weak = replace(EXPECTED.settings, certificates=(pem_of(KEY), pem_of(ec.generate_private_key(ec.SECP224R1()))))
    assert "a certificate of its settings has a key" in refusal(answer().encoded(), replace(EXPECTED, settings=weak))


def test_a_certificate_is_read_in_pem_and_as_metadata_has_it() -> None:
    bare = "".join(line for line in pem_of(KEY).splitlines() if "-----" not in line)
    assert (
        read_certificate(f"  {pem_of(KEY)} ").public_key() == read_certificate(f"{bare[:64]}\n{bare[64:]}").public_key()
    )
