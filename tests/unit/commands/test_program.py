"""`pulsegate`, as a shell finds it once docs/operations.md has been followed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT

_GUIDE = (CHECKOUT / "docs" / "operations.md").read_text()
_KUBERNETES = (CHECKOUT / "docs" / "install-kubernetes.md").read_text()
#: TAB, after a word that begins two commands.
_TAB = """
COMP_WORDS=(pulsegate s) COMP_CWORD=1
_pulsegate_completion pulsegate
printf '%s\\n' "${COMPREPLY[@]}"
"""


def _shell(folder: Path, *lines: str) -> str:
    """What a shell says that begins in the checkout and goes to another folder after the first line."""
    first, *further = lines
    script = "\n".join([first, f"cd '{folder}'", *further])
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    ended = subprocess.run(
        ["bash", "-euc", script], cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.fixture(scope="module")
def guide() -> list[str]:
    """What the guide has an operator type."""
    found = re.search(r"```console\n\$ (export PATH.*?)\n\$ (eval .*?)\n", _GUIDE)
    assert found is not None
    return list(found.groups())


def test_the_shell_completes_commands_in_any_folder(guide: list[str], tmp_path: Path) -> None:
    assert _shell(tmp_path, *guide, _TAB).split() == ["status", "support-bundle"]


def test_help_names_every_command_and_needs_no_installation(guide: list[str], tmp_path: Path) -> None:
    helped = _shell(tmp_path, guide[0], "pulsegate --help")
    commands = ("migrate", "status", "doctor", "backup", "restore", "canary-key", "support-bundle")
    assert all(command in helped for command in commands)
    told = _shell(tmp_path, guide[0], "pulsegate --data /nowhere backup --help")
    assert "Keep it as you keep passwords" in told


def test_a_folder_with_a_python_package_of_its_name_does_not_come_first(guide: list[str], tmp_path: Path) -> None:
    (tmp_path / "pulsegate").mkdir()
    (tmp_path / "pulsegate" / "__main__.py").write_text("raise SystemExit('another one')")
    assert "Operate an installation" in _shell(tmp_path, guide[0], "pulsegate --help")


def test_migrate_says_what_does_it_where_the_guide_to_kubernetes_was_followed(guide: list[str], tmp_path: Path) -> None:
    described = re.search(r"```toml\n(# installation\.toml\n.*?)```", _KUBERNETES, re.DOTALL)
    assert described is not None
    (tmp_path / "installation.toml").write_text(described[1])
    (tmp_path / "superuser_dsn").write_text("postgresql://nobody")
    (tmp_path / "nats_url").write_text("nats://nobody")
    (tmp_path / "redis_url").write_text("redis://nobody")
    refused = _shell(tmp_path, guide[0], "! pulsegate --installation installation.toml migrate 2>&1")
    assert "`helm upgrade`" in refused
