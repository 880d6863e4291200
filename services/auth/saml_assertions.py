"""What an answer of a SAML provider must be for somebody to be signed in by it.

Nothing is read of an assertion but what came out of its signature's verification (`saml_documents.signed_part`).
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lxml import etree

from services.auth.domain import email_fault
from services.auth.errors import SignOnFailed, TooManyGroups
from services.auth.identity_providers import Vouched
from services.auth.provider_settings import SamlSettings
from services.auth.saml_documents import (
    NAMES,
    PERSISTENT,
    NotSigned,
    UnreadableXml,
    is_signed,
    named,
    parsed_base64,
    signed_part,
)
from services.auth.saml_metadata import ServiceProvider
from services.auth.signing_certificates import UnusableCertificate, read_certificate

_SKEW = timedelta(seconds=60)
_MOST_SUBJECT_CHARACTERS = 255
_MOST_GROUPS = 1000
_VERSION = "2.0"
_SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
_BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
#: Who does not know a condition must not believe the assertion (saml-core-2.0-os, 2.5.1.1).
_KNOWN_CONDITIONS = frozenset(named("saml", name) for name in ("AudienceRestriction", "OneTimeUse", "ProxyRestriction"))


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What an answer is held to."""

    settings: SamlSettings
    #: The attribute that roles are mapped from; empty: none.
    role_attribute: str
    us: ServiceProvider
    request_id: str
    now: datetime


def vouched_by(response: str, expected: Expected) -> Vouched:
    """Whom an answer, in base64, vouches for. Takes milliseconds. Raises SignOnFailed."""
    try:
        root = parsed_base64(response)
    except UnreadableXml as error:
        raise SignOnFailed(f"its answer cannot be read: {error}") from error
    _require_answer(root, expected)
    assertion = _signed_assertion(root, expected)
    _require_valid(assertion, expected)
    return _vouched(assertion, expected)


def _require_answer(root: etree._Element, expected: Expected) -> None:
    """What the envelope says, which may be signed by nobody: it can only keep the answer from being believed."""
    if root.tag != named("samlp", "Response") or root.get("Version") != _VERSION:
        raise SignOnFailed("it sends no answer of SAML 2.0")
    # One could cut a text in two, for a reader who does not see that.
    if not all(isinstance(node.tag, str) for node in root.iter()):
        raise SignOnFailed("its answer has comments or processing instructions")
    if root.get("Destination", expected.us.acs_url) != expected.us.acs_url:
        raise SignOnFailed("its answer is for somebody else")
    if root.get("InResponseTo", expected.request_id) != expected.request_id:
        raise SignOnFailed("its answer is to another request")
    statuses = [found.get("Value", "") for found in root.iterfind("samlp:Status//samlp:StatusCode", NAMES)]
    if statuses[:1] != [_SUCCESS]:
        raise SignOnFailed(f"it answers {_printable((statuses or [''])[-1].rpartition(':')[2]) or 'without a status'}")


def _signed_assertion(root: etree._Element, expected: Expected) -> etree._Element:
    """The one that there is, as it was signed: by a signature of its own, or by the answer's."""
    if root.find(".//saml:EncryptedAssertion", NAMES) is not None:
        raise SignOnFailed("its assertion is encrypted, which is not supported")
    assertions = root.findall(".//saml:Assertion", NAMES)
    if len(assertions) != 1 or assertions[0].getparent() is not root:
        raise SignOnFailed("its answer has not one assertion")
    try:
        certificates = [read_certificate(text) for text in expected.settings.certificates]
        signed = signed_part(assertions[0] if is_signed(assertions[0]) else root, certificates, expected.now)
    except NotSigned as error:
        raise SignOnFailed(f"its answer cannot be believed: {error}") from error
    except UnusableCertificate as error:
        raise SignOnFailed(f"a certificate of its settings {error}") from error
    return next(signed.iter(named("saml", "Assertion")))


def _require_valid(assertion: etree._Element, expected: Expected) -> None:
    if assertion.get("Version") != _VERSION or _texts(assertion, "saml:Issuer") != [expected.settings.entity_id]:
        raise SignOnFailed("its assertion is of another issuer")
    if not any(
        _confirms(data, expected) for data in assertion.iterfind("saml:Subject/saml:SubjectConfirmation", NAMES)
    ):
        raise SignOnFailed("its assertion is not about this sign-on, or comes too late")
    _require_conditions(assertion, expected)
    statements = assertion.findall("saml:AuthnStatement", NAMES)
    if not statements:
        raise SignOnFailed("its assertion does not say that anybody signed in")
    if any(_is_over(statement.get("SessionNotOnOrAfter"), expected.now) for statement in statements):
        raise SignOnFailed("its session is over")


def _confirms(confirmation: etree._Element, expected: Expected) -> bool:
    """Whether it says: who brings this is who it is about, here, now, and for our request."""
    data = confirmation.find("saml:SubjectConfirmationData", NAMES)
    if confirmation.get("Method") != _BEARER or data is None:
        return False
    ours = hmac.compare_digest(data.get("InResponseTo", "").encode(), expected.request_id.encode())
    here = data.get("Recipient") == expected.us.acs_url
    until, since = data.get("NotOnOrAfter"), data.get("NotBefore")
    return ours and here and until is not None and not _is_over(until, expected.now) and _has_begun(since, expected.now)


def _require_conditions(assertion: etree._Element, expected: Expected) -> None:
    found = assertion.findall("saml:Conditions", NAMES)
    if len(found) != 1 or not {child.tag for child in found[0]} <= _KNOWN_CONDITIONS:
        raise SignOnFailed("its assertion has conditions that are not known, or none")
    [conditions] = found
    if _is_over(conditions.get("NotOnOrAfter"), expected.now) or not _has_begun(
        conditions.get("NotBefore"), expected.now
    ):
        raise SignOnFailed("its assertion is not valid at this time")
    restrictions = conditions.findall("saml:AudienceRestriction", NAMES)
    audiences = [_texts(restriction, "saml:Audience") for restriction in restrictions]
    if not audiences or not all(expected.us.entity_id in allowed for allowed in audiences):
        raise SignOnFailed("its assertion is for somebody else")


def _vouched(assertion: etree._Element, expected: Expected) -> Vouched:
    attributes, settings = _attributes(assertion), expected.settings
    if settings.subject_attribute:
        subjects = attributes.get(settings.subject_attribute, [])
    else:
        names = assertion.iterfind("saml:Subject/saml:NameID", NAMES)
        subjects = [_text(name) for name in names if _lasts(name, expected)]
    if len(subjects) != 1 or not 0 < len(subjects[0]) <= _MOST_SUBJECT_CHARACTERS or not subjects[0].isprintable():
        raise SignOnFailed("it says no lasting name for you, or none that can be kept")
    groups = attributes.get(expected.role_attribute, [])
    if len(groups) > _MOST_GROUPS:
        raise TooManyGroups
    emails = attributes.get(settings.email_attribute, [])
    return Vouched(
        subject=subjects[0],
        email=emails[0] if emails and not email_fault(emails[0]) else "",
        groups=groups,
    )


def _lasts(name: etree._Element, expected: Expected) -> bool:
    """Whether a NameID is the provider's lasting name for somebody, made for us (saml-core-2.0-os, 8.3.7)."""
    made_by, made_for = expected.settings.entity_id, expected.us.entity_id
    ours = name.get("NameQualifier", made_by) == made_by and name.get("SPNameQualifier", made_for) == made_for
    return name.get("Format") == PERSISTENT and ours


def _attributes(assertion: etree._Element) -> Mapping[str, list[str]]:
    """Texts by the attribute's name; one that is there twice has all of them."""
    found: dict[str, list[str]] = {}
    for attribute in assertion.iterfind("saml:AttributeStatement/saml:Attribute", NAMES):
        values = [value for value in attribute.iterfind("saml:AttributeValue", NAMES) if not len(value)]
        found.setdefault(attribute.get("Name", ""), []).extend(map(_text, values))
    return found


def _texts(parent: etree._Element, path: str) -> Sequence[str]:
    return [_text(found) for found in parent.iterfind(path, NAMES)]


def _text(element: etree._Element) -> str:
    """All of it, whatever stands between."""
    return "".join(element.itertext()).strip()


def _is_over(until: str | None, now: datetime) -> bool:
    return until is not None and _moment(until) <= now - _SKEW


def _has_begun(since: str | None, now: datetime) -> bool:
    return since is None or _moment(since) <= now + _SKEW


def _moment(text: str) -> datetime:
    """Of xs:dateTime; SAML's are UTC, also where they do not say so (saml-core-2.0-os, 1.3.3). Raises SignOnFailed."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise SignOnFailed("its assertion has times that are none") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _printable(text: str) -> str:
    """What a provider says, made fit for a message."""
    return "".join(filter(str.isprintable, text))[:100]
