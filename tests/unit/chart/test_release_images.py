"""What a release says of its images is taken by every installation, whichever tracks it has."""

import os
import subprocess
from pathlib import Path

import helm_python
import pytest
import yaml

from deploy.local.layout import CHECKOUT
from tests.chart_rendering import Rendered, Values, render

_DIGEST = f"sha256:{'ab' * 32}"


def _named_by_the_workflow(folder: Path) -> Values:
    """What the release's step writes; a stand-in for Docker answers each question for a digest."""
    workflow = yaml.safe_load((CHECKOUT / ".github" / "workflows" / "release.yaml").read_text())
    steps = {step.get("name"): step for step in workflow["jobs"]["publish"]["steps"]}
    docker = folder / "docker"
    docker.write_text(f"#!/bin/sh\necho {_DIGEST}\n")
    docker.chmod(0o755)
    told = {"PATH": f"{folder}:{os.environ['PATH']}", "REPOSITORY": "registry.example.com/team"}
    command = ["bash", "-e", "-c", steps["Name the images by their digests"]["run"]]
    subprocess.run(command, cwd=folder, env={**told, "GITHUB_REF_NAME": "v0.1.0"}, check=True)
    named: Values = yaml.safe_load((folder / "images.yaml").read_text())
    return named


def _images(rendered: Rendered, track: str) -> list[str]:
    return [pod.container["image"] for pod in rendered.services() if pod.track == track]


def test_tracks_without_a_tag_of_their_own_have_the_releases_images_and_none_is_revived(tmp_path: Path) -> None:
    images = _named_by_the_workflow(tmp_path)
    plain = render(images)
    assert all(image.endswith(f":0.1.0@{_DIGEST}") for image in _images(plain, "stable"))
    two = render({**images, "tracks": {"stable": {"tag": "0.0.9"}, "green": {"serving": False}}})
    assert all(image.endswith(":0.0.9") for image in _images(two, "stable"))
    assert all(image.endswith(f":0.1.0@{_DIGEST}") for image in _images(two, "green"))
    one = render({**images, "tracks": {"stable": None, "green": {}}, "migrations": {"track": "green"}})
    assert {pod.track for pod in one.services()} == {"green"}


def test_an_old_version_is_not_asked_for_beside_the_digests_of_the_new_one(tmp_path: Path) -> None:
    aggregators_first: Values = {"image": {"tag": "0.0.9"}, "aggregator": {"image": {"tag": "0.1.0"}}}
    images = {pod.component: pod.container["image"] for pod in render(aggregators_first).services()}
    assert images["aggregator"] == "pulsegate-ingest:0.1.0"
    assert {image.rpartition(":")[2] for name, image in images.items() if name != "aggregator"} == {"0.0.9"}
    released = _named_by_the_workflow(tmp_path)
    with pytest.raises(helm_python.HelmRenderError, match=r"image\.tag: 0\.0\.9 would not be what runs"):
        render({**released, "image": {**released["image"], "tag": "0.0.9"}})
    same = render({**released, "image": {**released["image"], "tag": "0.1.0"}})
    assert all(image.endswith(f":0.1.0@{_DIGEST}") for image in _images(same, "stable"))
