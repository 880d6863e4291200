"""The gRPC call for callers inside, as docs/doors.md has it, word for word."""

import asyncio
import os
import re
import sys

import pytest

from deploy.local.layout import CHECKOUT
from tests.e2e.api import Project
from tests.suite_running import Suite

pytestmark = pytest.mark.timeout(120)


def documented() -> str:
    section = (CHECKOUT / "docs/doors.md").read_text().split("\n## gRPC, for callers inside\n")[1].split("\n## ")[0]
    [script] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return str(script)


async def test_the_documented_call_counts(project: Project, suite: Suite) -> None:
    await project.define("orders_total")
    environment = {
        "KEY": project.secret_key,
        "PULSEGATE_SERVICE_TOKEN": suite.secret("service_token"),
        "PULSEGATE_AUTH_ADDRESS": f"127.0.0.1:{suite.ports.grpc('auth')}",
        "PULSEGATE_INGEST_ADDRESS": f"127.0.0.1:{suite.port + 9}",
    }
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        documented(),
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaint = await running.communicate()
    assert said.decode() == "accepted 1 rejected []\n", complaint.decode()
    await project.shows("orders_total", 2)
