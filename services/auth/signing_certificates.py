"""Certificates of providers that sign: pinned, so what counts is their key and their time, not who issued them.

And of authorities that a provider's own certificate is signed by. Whoever makes an RSA key chooses how long it takes to
verify with it: a hundred times as long with an exponent of its own.
"""

import base64
import ssl
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

_BEGIN = "-----BEGIN CERTIFICATE-----"
_LEAST_RSA_BITS, _MOST_RSA_BITS = 2048, 8192
_MOST_EXPONENT_BITS = 32
_LEAST_EC_BITS = 256


class UnusableCertificate(ValueError):
    """A text that is no certificate, or one whose key must not be trusted."""


def read_certificate(text: str) -> x509.Certificate:
    """PEM, or the base64 of metadata, of a certificate with a key that signatures may be made with today.

    Raises UnusableCertificate.
    """
    try:
        if text.strip().startswith(_BEGIN):
            certificate = x509.load_pem_x509_certificate(text.strip().encode())
        else:
            certificate = x509.load_der_x509_certificate(base64.b64decode("".join(text.split()), validate=True))
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableCertificate("is no certificate in PEM or base64") from error
    strong = (isinstance(key, rsa.RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS) or (
        isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= _LEAST_EC_BITS
    )
    if not strong:
        raise UnusableCertificate(f"has a key that is neither RSA of {_LEAST_RSA_BITS} bits nor EC of {_LEAST_EC_BITS}")
    _require_quick(key)
    return certificate


def read_authorities(text: str) -> Sequence[x509.Certificate]:
    """Certificates in PEM, and nothing else. Raises UnusableCertificate."""
    try:
        ssl.create_default_context(cadata=text)
        authorities = x509.load_pem_x509_certificates(text.encode())
        keys = [authority.public_key() for authority in authorities]
    except (ValueError, UnsupportedAlgorithm, ssl.SSLError) as error:
        raise UnusableCertificate("is no certificate in PEM") from error
    # TLS takes some that are named otherwise, and would not be looked at here.
    if text.count("-----BEGIN") != len(authorities):
        raise UnusableCertificate("has more than certificates")
    for key in keys:
        _require_quick(key)
    return authorities


def _require_quick(key: object) -> None:
    """Raises UnusableCertificate."""
    if isinstance(key, rsa.RSAPublicKey) and (
        key.key_size > _MOST_RSA_BITS or key.public_numbers().e.bit_length() > _MOST_EXPONENT_BITS
    ):
        raise UnusableCertificate(
            f"has an RSA key of more than {_MOST_RSA_BITS} bits, or an exponent of more than {_MOST_EXPONENT_BITS}"
        )
