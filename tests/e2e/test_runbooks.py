"""Whoever is woken finds commands in the runbooks that work."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT
from deploy.local.servers import postgres_programs
from tests.suite_running import Suite

_RUNBOOKS = sorted((CHECKOUT / "docs" / "runbooks").glob("Pulsegate*.md"))
_COMMANDS = re.compile(r"^\$ (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def shell(suite: Suite, promtool: Path) -> dict[str, str]:
    """The environment that docs/runbooks/README.md asks for."""
    processes = ("GATEWAY", "AUTH", "CONFIG", "CODEGEN", "RECEIVER", "AGGREGATOR")
    return {
        "PATH": f"{promtool.parent}:{postgres_programs()}:{os.environ['PATH']}",
        "PROMETHEUS": suite.prometheus_url,
        "DATABASE": suite.dsn(),
        "NATS": f"http://127.0.0.1:{suite.ports.server('nats-monitoring')}",
        **{name: f"http://127.0.0.1:{suite.ports.operations(name.lower())}" for name in processes},
    }


@pytest.mark.parametrize("path", _RUNBOOKS, ids=lambda path: path.stem)
def test_every_command_of_a_runbook_works_and_says_something(suite: Suite, shell: dict[str, str], path: Path) -> None:
    suite.wait_ready()
    for command in _COMMANDS.findall(path.read_text()):
        ran = subprocess.run(
            ["bash", "-c", command], env=shell, check=False, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, f"{command}\n{ran.stderr}"
        assert not ran.stderr, f"{command}\n{ran.stderr}"
        assert ran.stdout or command.startswith("promtool"), command
