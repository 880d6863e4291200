"""What a file may say about an installation, and what is told about one that cannot be used."""

import re
import traceback
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT, OPERATIONS_PORTS
from pulsegate.installation import Installation, NoInstallationError, from_file

_DOCUMENTED = re.search(r"```toml\n(.*?)```", (CHECKOUT / "docs" / "operations.md").read_text(), re.DOTALL)


_ADDRESSES = {
    "superuser_dsn": "postgresql://postgres:hunter2@db/pulsegate",
    "nats_url": "nats://pulsegate:hunter2@log:4222",
    "redis_url": "redis://:hunter2@cache:6379/0",
    "ingest_owner_dsn": "postgresql://ingest_owner:hunter2@db/pulsegate",
}


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """The documented example, with its files in a folder."""
    assert _DOCUMENTED is not None
    for name, address in _ADDRESSES.items():
        (tmp_path / name).write_text(f"{address}\n")
    path = tmp_path / "installation.toml"
    path.write_text(_DOCUMENTED[1].replace("/run/secrets", str(tmp_path)))
    return path


def test_the_documented_file_is_understood(described: Path) -> None:
    secrets = list(_ADDRESSES.values())
    assert from_file(described) == Installation(
        processes={"gateway": "http://127.0.0.1:8081", "aggregator": "http://127.0.0.1:8090"},
        database=secrets[0],
        nats=secrets[1],
        logs=Path("/var/log/pulsegate"),
        nats_monitoring=("http://127.0.0.1:8222",),
        valkey=secrets[2],
        owners={"ingest": secrets[3]},
        prometheus="http://127.0.0.1:9090",
        namespace="pulsegate",
        sink="http://127.0.0.1:9090",
        secrets=tuple(secrets),
    )


def test_the_file_of_the_guide_for_kubernetes_is_understood(tmp_path: Path) -> None:
    guide = (CHECKOUT / "docs" / "install-kubernetes.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    for name in ("superuser_dsn", "nats_url", "redis_url"):
        (tmp_path / name).write_text(_ADDRESSES[name])
        block = block.replace(f'"{name}"', f'"{tmp_path / name}"')
    (tmp_path / "installation.toml").write_text(block)
    understood = from_file(tmp_path / "installation.toml")
    assert understood.logs is None
    assert {*understood.processes, "canary"} == {*OPERATIONS_PORTS, "canary"}
    assert len(set(understood.processes.values())) == len(understood.processes)


@pytest.mark.parametrize(
    ("said", "instead", "told"),
    [
        ("[owners]", "[owner]", "unknown field `owner`"),
        ("nats = ", "log = ", "unknown field `log`"),
        ('prometheus = "http://127.0.0.1:9090"', "", "missing required field `prometheus`"),
        ('"http://127.0.0.1:8081"', "8081", "Expected `str`, got `int`"),
        ('namespace = "pulsegate"', "namespace = 'a\"'", "Expected `str` matching regex"),
        ("superuser_dsn", "elsewhere", "No such file"),
        ("[processes]", "[processes", "Expected"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_without_its_secrets(
    described: Path, said: str, instead: str, told: str
) -> None:
    described.write_text(described.read_text().replace(said, instead, 1))
    with pytest.raises(NoInstallationError, match=re.escape(told)) as refused:
        from_file(described)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("file", "address"),
    [
        ("superuser_dsn", "postgres:hunter2@db/pulsegate"),
        ("superuser_dsn", "postgresql://postgres:hunter2/word@db/pulsegate"),
        ("ingest_owner_dsn", "postgresql://ingest_owner:the@hunter2@db/pulsegate"),
        ("nats_url", "pulsegate:hunter2@log:4222"),
        ("nats_url", "nats://pulsegate:[hunter2@log:4222"),
        ("redis_url", "cache:hunter2@cache:6379"),
        ("redis_url", "redis://:[hunter2@cache:6379"),
    ],
)
def test_an_address_that_nobody_can_read_is_refused_and_not_quoted(described: Path, file: str, address: str) -> None:
    (described.parent / file).write_text(address)
    with pytest.raises(NoInstallationError, match="must be") as refused:
        from_file(described)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))
