"""What is checked before a release is what is checked on a change."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from deploy.local.layout import CHECKOUT

_FOLDER = CHECKOUT / ".github" / "workflows"
_ALLOWS_GIT = 'git config --global --add safe.directory "$PWD"'


def _jobs(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((_FOLDER / name).read_text())["jobs"]
    return found


def _targets(commands: str) -> set[str]:
    """What make is asked for."""
    return {target for line in re.findall(r"^make ((?:[a-z-]+ ?)+)", commands, re.MULTILINE) for target in line.split()}


def test_a_release_is_of_what_every_part_has_checked() -> None:
    jobs = _jobs("checks.yaml")
    parts = "\n".join(each["command"] for each in jobs["part"]["strategy"]["matrix"]["include"])
    whole = [step["run"] for step in jobs["whole"]["steps"] if "run" in step]
    assert ".ci/run" in whole
    checked = _targets("\n".join([(CHECKOUT / ".ci" / "run").read_text(), *whole]))
    assert {"lint", "types", "proto-check", "test", "security", "chart"} <= _targets(parts) <= checked


def _in_containers() -> Iterator[tuple[str, Any]]:
    for path in _FOLDER.glob("*.yaml"):
        yield from ((f"{path.name}: {name}", job) for name, job in _jobs(path.name).items() if "container" in job)


def test_in_a_container_git_may_read_the_checkout_before_anything_asks_it() -> None:
    jobs = dict(_in_containers())
    assert len(jobs) >= 3
    for name, job in jobs.items():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        assert _ALLOWS_GIT in commands[:2], name


def test_images_go_where_a_registry_takes_them_whatever_their_owner_is_called(tmp_path: Path) -> None:
    jobs = _jobs("release.yaml")
    (lower,) = jobs["names"]["steps"]
    answer = tmp_path / "output"
    told = {"REGISTRY": "ghcr.io", "GITHUB_REPOSITORY": "Some-Owner/Pulsegate", "GITHUB_OUTPUT": str(answer)}
    subprocess.run(["bash", "-e", "-c", lower["run"]], env=told, check=True)
    assert answer.read_text() == "repository=ghcr.io/some-owner/pulsegate\n"
    for name in ("image", "publish"):
        assert "names" in jobs[name]["needs"]
        assert jobs[name]["env"]["REPOSITORY"] == "${{ needs.names.outputs.repository }}"


def test_a_scan_fails_for_the_severities_that_it_names_alone() -> None:
    jobs = [job for path in _FOLDER.glob("*.yaml") for job in _jobs(path.name).values()]
    steps = [step for job in jobs for step in job.get("steps", ()) if "trivy-action" in step.get("uses", "")]
    assert len(steps) >= 2
    for told in (step["with"] for step in steps):
        assert told["severity"]
        # Without this a report in this format has all of them, and each counts.
        assert told.get("format") != "sarif" or told["limit-severities-for-sarif"] is True


def test_an_image_has_its_tag_once_it_was_scanned_and_signed() -> None:
    steps = _jobs("release.yaml")["image"]["steps"]
    marks = ("push-by-digest=true", "trivy-action", "cosign sign", "--tag")
    assert [mark for step in steps for mark in marks if mark in f"{step.get('uses')} {step.get('run')}"] == list(marks)
