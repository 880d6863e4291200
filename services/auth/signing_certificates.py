"""Certificates of providers that sign: pinned, so what counts is their key and their time, not who issued them."""

import base64

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

_BEGIN = "-----BEGIN CERTIFICATE-----"
_LEAST_RSA_BITS = 2048
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
    return certificate
