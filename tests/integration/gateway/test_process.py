"""The gateway as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from deploy.local.layout import CHECKOUT, Ports


def run(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "services.gateway"],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("redis_url", ["ftp://user:canary@cache", "redis://:cana/ry@cache:6379/0"])
def test_a_wrong_configuration_is_named_whole(port_blocks: Callable[[], Ports], redis_url: str) -> None:
    ended = run({"PULSEGATE_PORT": "none", "PULSEGATE_REDIS_URL": redis_url})
    assert ended.returncode == 78
    for name in ("PORT", "REDIS_URL", "OPS_PORT", "SERVICE_TOKEN", "AUTH_ADDRESS", "INGEST_ADDRESS"):
        assert f"PULSEGATE_{name}:" in ended.stderr
    assert "cana" not in ended.stdout + ended.stderr
