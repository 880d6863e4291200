"""What a support bundle shows of what is known to be a secret."""

import os
import tarfile
from pathlib import Path

import pytest

from pulsegate import bundles
from pulsegate.installation import Installation


def installation(logs: Path) -> Installation:
    return Installation(
        processes={},
        database="host=127.0.0.1 port=1 user=postgres password='of the superuser'",
        owners={"auth": "postgresql://auth_owner:p%40ssw%C3%B6rd-of-auth@127.0.0.1:1/pulsegate?connect_timeout=1"},
        nats="nats://one:word-of-nats@127.0.0.1:1,nats://two:another-of-nats@127.0.0.1:1",
        prometheus="http://127.0.0.1:1",
        logs=logs,
    )


def test_passwords_inside_of_addresses_are_secrets_however_they_are_written(tmp_path: Path) -> None:
    passwords = ["of the superuser", "p@sswörd-of-auth", "p%40ssw%C3%B6rd-of-auth", "word-of-nats", "another-of-nats"]
    (tmp_path / "gateway.log").write_text("\n".join(f"said {password} to it" for password in passwords))
    bundle = tmp_path / "bundle.tar.gz"
    bundles.make(installation(tmp_path), bundle)
    with tarfile.open(bundle) as archive:
        file = archive.extractfile("logs/gateway.log")
        assert file is not None
        assert file.read().decode() == "\n".join(["said [redacted] to it"] * len(passwords))


def test_a_bundle_is_for_its_owner_alone_and_replaces_nothing(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.tar.gz"
    before = os.umask(0)
    try:
        bundles.make(installation(tmp_path), bundle)
    finally:
        os.umask(before)
    assert bundle.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        bundles.make(installation(tmp_path), bundle)
