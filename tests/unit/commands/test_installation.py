"""What a file may say about an installation, and what is told about one that cannot be used."""

import re
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT
from pulsegate.installation import PROCESSES, Installation, NoInstallationError, from_file

_DOCUMENTED = re.search(r"```toml\n(.*?)```", (CHECKOUT / "docs" / "operations.md").read_text(), re.DOTALL)


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """The documented example, with its files in a folder."""
    assert _DOCUMENTED is not None
    for name in ("superuser_dsn", "nats_url", "ingest_owner_dsn"):
        (tmp_path / name).write_text(f"address of {name}\n")
    path = tmp_path / "installation.toml"
    path.write_text(_DOCUMENTED[1].replace("/run/secrets", str(tmp_path)))
    return path


def test_the_documented_file_is_understood(described: Path) -> None:
    secrets = [f"address of {name}" for name in ("superuser_dsn", "nats_url", "ingest_owner_dsn")]
    assert from_file(described) == Installation(
        processes={"gateway": "http://127.0.0.1:8081", "aggregator": "http://127.0.0.1:8090"},
        database=secrets[0],
        nats=secrets[1],
        nats_monitoring=("http://127.0.0.1:8222",),
        owners={"ingest": secrets[2]},
        prometheus="http://127.0.0.1:9090",
        sink="http://127.0.0.1:9090",
        secrets=tuple(secrets),
    )


def test_the_file_of_the_guide_for_kubernetes_is_understood(tmp_path: Path) -> None:
    guide = (CHECKOUT / "docs" / "install-kubernetes.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    for name in ("superuser_dsn", "nats_url"):
        (tmp_path / name).write_text(f"address of {name}\n")
        block = block.replace(f'"{name}"', f'"{tmp_path / name}"')
    (tmp_path / "installation.toml").write_text(block)
    understood = from_file(tmp_path / "installation.toml")
    assert {*understood.processes, "canary"} == set(PROCESSES)
    assert len(set(understood.processes.values())) == len(understood.processes)


@pytest.mark.parametrize(
    ("said", "instead", "told"),
    [
        ("[owners]", "[owner]", "unknown field `owner`"),
        ("nats = ", "log = ", "unknown field `log`"),
        ('prometheus = "http://127.0.0.1:9090"', "", "missing required field `prometheus`"),
        ('"http://127.0.0.1:8081"', "8081", "Expected `str`, got `int`"),
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
    assert "address of" not in str(refused.value)
