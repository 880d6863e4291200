"""The audit leaves out nothing that is locked."""

import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from deploy.audit.__main__ import LOCKS, NODE_FOLDERS

_CHECKOUT = Path(__file__).parents[3]


def _folders_with(name: str) -> Iterator[str]:
    """Of the project itself: what was installed or built is elsewhere, or hidden."""
    for folder, folders, files in os.walk(_CHECKOUT):
        folders[:] = [each for each in folders if each != "node_modules" and not each.startswith(".")]
        if name in files:
            yield Path(folder).relative_to(_CHECKOUT).as_posix()


def test_every_lock_of_node_packages_is_audited_and_kept_fresh() -> None:
    found = sorted(_folders_with("package-lock.json"))
    updates = yaml.safe_load((_CHECKOUT / ".github/dependabot.yaml").read_text())["updates"]
    [watched] = [each["directories"] for each in updates if each["package-ecosystem"] == "npm"]
    assert sorted(NODE_FOLDERS) == sorted(each.lstrip("/") for each in watched) == found


def test_every_lock_of_python_packages_is_audited() -> None:
    assert sorted(LOCKS) == sorted(path.name for path in (_CHECKOUT / "requirements").glob("*.txt"))
