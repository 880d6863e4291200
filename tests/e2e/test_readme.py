"""The README's first metric in two minutes, word for word."""

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def _commands() -> list[str]:
    """The console blocks of the section, as a shell takes them."""
    section = (CHECKOUT / "README.md").read_text().split("## A first metric in two minutes")[1].split("\n## ")[0]
    lines = "\n".join(re.findall(r"```console\n(.*?)```", section, re.DOTALL)).splitlines()
    commands: list[str] = []
    for line in lines:
        if line.startswith("$ "):
            commands.append(line[2:])
        else:
            commands[-1] += "\n" + line
    return commands


async def _shell(script: str, folder: Path, home: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script,
        cwd=folder,
        env={**os.environ, "HOME": str(home)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, faults = await process.communicate()
    assert process.returncode == 0, faults.decode()
    return output.decode()


async def test_the_first_metric_in_two_minutes_works_as_it_is_written(suite: Suite, tmp_path: Path) -> None:
    suite.wait_ready()
    *commands, query = (command.replace("localhost:8080", f"127.0.0.1:{suite.port}") for command in _commands())
    printed = await _shell("\n".join([*commands, r'printf "\nKEY=%s\n" "$KEY"']), tmp_path, tmp_path)
    key = re.findall(r"^KEY=(sk_\w+)$", printed, re.MULTILINE)[0]

    async def answers() -> bool:
        answer = json.loads(await _shell(f"KEY={key}\n{query}", tmp_path, tmp_path))
        return [series["value"][1] for series in answer["data"]["result"]] == ["3"]

    await eventually(answers, within_seconds=15, what="the query answers 3")
