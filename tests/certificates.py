"""Certificates for servers of tests."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def self_signed(folder: Path, name: str, key: PrivateKey | None = None) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and the key that has signed it: an own one, or a new one."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    certificate_path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
    certificate_path.write_bytes(certificate_of(key, name).public_bytes(serialization.Encoding.PEM))
    _write_key(key, key_path)
    return certificate_path, key_path


def chain(folder: Path, length: int) -> tuple[Path, Path, str]:
    """So many certificates of which each has signed the one before, the first for 127.0.0.1; the key of all; and, in
    PEM, the authority that has signed the last."""
    key = ec.generate_private_key(ec.SECP256R1())
    chain_path, key_path = folder / "chain.pem", folder / "chain.key"
    authority, *signed = [
        _builder(key, f"number {number}", dt.timedelta(hours=1))
        .issuer_name(_named(f"number {max(number - 1, 0)}"))
        .add_extension(x509.BasicConstraints(ca=number < length, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        for number in range(length + 1)
    ]
    chain_path.write_bytes(b"".join(reversed(signed)))
    _write_key(key, key_path)
    return chain_path, key_path, authority.decode()


def certificate_of(key: PrivateKey, name: str, life: dt.timedelta = dt.timedelta(hours=1)) -> x509.Certificate:
    """For 127.0.0.1, signed by itself, from an hour ago on."""
    return _builder(key, name, life).issuer_name(_named(name)).sign(key, hashes.SHA256())


def _builder(key: PrivateKey, name: str, life: dt.timedelta) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + life)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _write_key(key: PrivateKey, path: Path) -> None:
    kind = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, *kind))
