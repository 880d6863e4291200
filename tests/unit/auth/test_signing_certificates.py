"""Certificates that a provider brings do not choose how long it takes to verify with them."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.auth.provider_settings import LdapSettings
from services.auth.signing_certificates import UnusableCertificate, read_certificate
from tests.certificates import certificate_of

_KEY = ec.generate_private_key(ec.SECP256R1())
_PEM = serialization.Encoding.PEM
_ORDINARY = certificate_of(_KEY, "authority").public_bytes(_PEM).decode()


def _of_rsa(bits: int, exponent: int) -> str:
    """A certificate whose key is of that size; nobody has its private key."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(rsa.RSAPublicNumbers(exponent, 2**bits - 1).public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(hours=1))
        .sign(_KEY, hashes.SHA256())
        .public_bytes(_PEM)
        .decode()
    )


_SLOW = [_of_rsa(8200, 65_537), _of_rsa(3072, 2**3071 + 1), _of_rsa(2048, 2**32 + 1)]


def _fault(authority: str) -> str | None:
    settings = LdapSettings(
        url="ldaps://dc1.example.com",
        certificate_authority=authority,
        base_dn="dc=example",
        user_filter="(uid={login})",
        id_attribute="entryUUID",
        email_attribute="mail",
    )
    return settings.faults().get("ldap.certificateAuthority")


@pytest.mark.parametrize("slow", _SLOW)
def test_a_key_that_takes_long_to_verify_with_is_refused(slow: str) -> None:
    with pytest.raises(UnusableCertificate, match="more than 8192 bits, or an exponent of more than 32"):
        read_certificate(slow)
    assert "more than 8192 bits" in (_fault(_ORDINARY + slow) or "")


def test_the_largest_ordinary_keys_are_taken() -> None:
    largest = _of_rsa(8192, 2**32 - 1)
    assert read_certificate(largest)
    assert _fault(largest) is None


def test_authorities_are_at_most_ten_certificates_and_nothing_else() -> None:
    assert _fault(_ORDINARY * 10) is None
    assert _fault(_ORDINARY * 11) == "must be at most 10 certificates"
    for other in ("TRUSTED CERTIFICATE", "X509 CRL"):
        assert _fault(_ORDINARY + _ORDINARY.replace("CERTIFICATE", other)) is not None
    assert _fault("none") == "is no certificate in PEM"
