"""One version everywhere, and notes for it."""

import datetime as dt
import shutil
from pathlib import Path

import pytest

from deploy.release.versions import ReleaseError, check, notes, prepare

_ROOT = Path(__file__).parents[3]
_TODAY = dt.date(2031, 5, 6)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what a release touches."""
    for name in ("pyproject.toml", "CHANGELOG.md", "deploy/helm/pulsegate/Chart.yaml", "deploy/docker/Dockerfile"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_ROOT / name, tmp_path / name)
    return tmp_path


def test_a_prepared_tree_is_the_version_and_has_its_notes(tree: Path) -> None:
    unreleased = (tree / "CHANGELOG.md").read_text().partition("## Unreleased\n")[2]
    prepare(tree, "v7.8.9", _TODAY)
    check(tree, "v7.8.9")
    assert notes(tree, "v7.8.9") in unreleased
    assert "## Unreleased\n\n## 7.8.9 — 2031-05-06\n" in (tree / "CHANGELOG.md").read_text()
    assert "appVersion: 7.8.9\n" in (tree / "deploy/helm/pulsegate/Chart.yaml").read_text()


def test_the_notes_of_a_version_end_where_the_one_before_begins(tree: Path) -> None:
    prepare(tree, "v7.8.9", _TODAY)
    changelog = tree / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("## Unreleased\n", "## Unreleased\n\n- New.\n"))
    prepare(tree, "v7.9.0", _TODAY)
    assert notes(tree, "v7.9.0") == "- New.\n"


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("pyproject.toml", 'version = "7.8.9"', 'version = "7.8.8"'),
        ("deploy/helm/pulsegate/Chart.yaml", "appVersion: 7.8.9", "appVersion: 7.8.8"),
        ("deploy/docker/Dockerfile", "ARG VERSION=7.8.9", "ARG VERSION=latest"),
        ("CHANGELOG.md", "## 7.8.9 ", "## 7.8.8 "),
    ],
)
def test_a_tree_that_is_not_what_its_tag_says_is_refused(tree: Path, file: str, before: str, after: str) -> None:
    prepare(tree, "v7.8.9", _TODAY)
    path = tree / file
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(ReleaseError, match=file):
        check(tree, "v7.8.9")


def test_nothing_unreleased_is_no_release(tree: Path) -> None:
    prepare(tree, "v7.8.9", _TODAY)
    with pytest.raises(ReleaseError, match="nothing unreleased"):
        prepare(tree, "v7.9.0", _TODAY)


@pytest.mark.parametrize("tag", ["", "v1.2", "1.2.3-rc1", "v1.2.3; rm", "latest"])
def test_a_tag_that_is_no_version_is_refused(tree: Path, tag: str) -> None:
    with pytest.raises(ReleaseError, match="no version"):
        check(tree, tag)
