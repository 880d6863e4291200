"""After a rollout the installation is tried as a client would; what does not count exactly goes back."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.e2e.api import Project

pytestmark = pytest.mark.timeout(120)

_ROOT = Path(__file__).parents[2]
_LABELS = [{"name": "run", "required": True}]
#: Stands in for Helm: writes down how it was called, and a rollback makes the installation right again.
_HELM = """#!{python}
import json, sys, urllib.request
with open({calls!r}, "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
if sys.argv[1] == "upgrade" and not {upgrades!r}:
    sys.exit("UPGRADE FAILED: timed out waiting for the condition")
if sys.argv[1] == "rollback" and {definitions!r}:
    definition = {{"name": "pulsegate_smoke_total", "type": "counter", "help": "h", "labels": {labels!r}}}
    headers = {{"Content-Type": "application/json", "Authorization": "Bearer {token}"}}
    request = urllib.request.Request({definitions!r}, json.dumps(definition).encode(), headers)
    urllib.request.urlopen(request).close()
"""


class Rollouts:
    """Runs deploy/release/rollout.sh against a project of the running suite."""

    def __init__(self, folder: Path, project: Project) -> None:
        self._folder = folder
        self._project = project
        self._calls = folder / "calls"

    async def run(
        self, *, url: str = "", key: str = "", upgrades: bool = True, repaired_by_rollback: bool = False
    ) -> tuple[int, str]:
        """The exit status and what was printed."""
        definitions = f"{self._project.api.base_url}/api/v1/projects/{self._project.id}/metrics"
        helm = self._folder / "helm"
        helm.write_text(
            _HELM.format(
                python=sys.executable,
                calls=str(self._calls),
                upgrades=upgrades,
                definitions=definitions if repaired_by_rollback else "",
                labels=_LABELS,
                token=self._project.token,
            )
        )
        helm.chmod(0o755)
        process = await asyncio.create_subprocess_exec(
            *(_ROOT / "deploy/release/rollout.sh", "metrics", url or self._project.api.base_url),
            *("pulsegate-1.2.3.tgz", "a values.yaml", "images.yaml"),
            env={
                "PATH": f"{self._folder}:{os.environ['PATH']}",
                "PULSEGATE_SMOKE_KEY": key or self._project.secret_key,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, printed.decode()

    def helm_calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self._calls.read_text().splitlines()]


@pytest.fixture
def rollouts(tmp_path: Path, project: Project) -> Rollouts:
    return Rollouts(tmp_path, project)


async def test_a_version_that_counts_exactly_stays(rollouts: Rollouts, project: Project) -> None:
    await project.define("pulsegate_smoke_total", labels=_LABELS)
    status, printed = await rollouts.run()
    assert (status, "sent 210, counted 210" in printed) == (0, True), printed
    (upgrade,) = rollouts.helm_calls()
    assert upgrade[:3] == ["upgrade", "pulsegate", "pulsegate-1.2.3.tgz"]
    assert upgrade[upgrade.index("--values") :][:4] == ["--values", "a values.yaml", "--values", "images.yaml"]
    assert "--atomic" in upgrade


async def test_a_version_that_does_not_goes_back(rollouts: Rollouts) -> None:
    status, printed = await rollouts.run(repaired_by_rollback=True)
    assert (status, "METRIC_NOT_DEFINED" in printed) == (1, True), printed
    assert [call[0] for call in rollouts.helm_calls()] == ["upgrade", "rollback"]


async def test_a_version_that_cannot_start_has_the_one_before_tried(rollouts: Rollouts, project: Project) -> None:
    status, printed = await rollouts.run(upgrades=False)
    assert (status, "METRIC_NOT_DEFINED" in printed) == (2, True), printed
    assert "deploy/postgres/bootstrap.sql" in printed, "where migrations miss a role"
    await project.define("pulsegate_smoke_total", labels=_LABELS)
    status, printed = await rollouts.run(upgrades=False)
    assert (status, "sent 210, counted 210" in printed) == (1, True), printed
    assert [call[0] for call in rollouts.helm_calls()] == ["upgrade", "upgrade"]


async def test_an_installation_that_is_wrong_after_the_way_back_too_is_told_apart(rollouts: Rollouts) -> None:
    status, printed = await rollouts.run(url="http://127.0.0.1:9")
    assert (status, "refused" in printed) == (2, True), printed


async def test_a_key_that_may_not_read_is_told(rollouts: Rollouts, project: Project) -> None:
    await project.define("pulsegate_smoke_total", labels=_LABELS)
    writing = await project.create_key("secret", scopes=["ingest:write"])
    status, printed = await rollouts.run(key=writing["key"])
    assert (status, "answered 403" in printed) == (2, True), printed
