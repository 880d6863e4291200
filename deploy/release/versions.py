"""The version stands in a few files and heads a section of the changelog; here they are read and moved together."""

import datetime as dt
import re
from pathlib import Path

_VERSION = re.compile(r"\d+\.\d+\.\d+")
#: Where the version stands: the file, and what stands before it on its line.
_PLACES = (
    ("pyproject.toml", 'version = "'),
    ("deploy/helm/pulsegate/Chart.yaml", "version: "),
    ("deploy/helm/pulsegate/Chart.yaml", "appVersion: "),
    ("deploy/docker/Dockerfile", "ARG VERSION="),
)
_UNRELEASED = "## Unreleased\n"


class ReleaseError(Exception):
    """The tree is not what the release says; the text tells where."""


def check(root: Path, tag: str) -> None:
    """See that the tree at `root` is the version that `tag` names, everywhere, and has notes for it."""
    version = _version(tag)
    for name, before in _PLACES:
        found = _place(before).search((root / name).read_text())
        if found is None or found.group(2) != version:
            raise ReleaseError(f"{name} says {found.group(2) if found else 'no version'}, the tag {version}")
    notes(root, tag)


def notes(root: Path, tag: str) -> str:
    """What the changelog says of the version that `tag` names, as Markdown."""
    version = _version(tag)
    section = re.search(
        rf"^## {re.escape(version)} — \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)",
        _changelog(root).read_text(),
        re.MULTILINE | re.DOTALL,
    )
    if section is None or not section.group(1).strip():
        raise ReleaseError(f"CHANGELOG.md has nothing about {version}")
    return section.group(1).strip() + "\n"


def prepare(root: Path, tag: str, today: dt.date) -> None:
    """Write the version into every file of the tree, and what was unreleased under its name and today's date."""
    version = _version(tag)
    text = _changelog(root).read_text()
    head, heading, rest = text.partition(_UNRELEASED)
    if not heading or rest.lstrip().startswith("## ") or not rest.strip():
        raise ReleaseError("CHANGELOG.md has nothing unreleased")
    for name, before in _PLACES:
        path = root / name
        path.write_text(_place(before).sub(rf"\g<1>{version}", path.read_text(), count=1))
    _changelog(root).write_text(f"{head}{_UNRELEASED}\n## {version} — {today.isoformat()}\n{rest}")


def _version(tag: str) -> str:
    version = tag.removeprefix("v")
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"{tag!r} is no version such as v1.2.3")
    return version


def _place(before: str) -> re.Pattern[str]:
    return re.compile(rf"^({re.escape(before)})(\d+\.\d+\.\d+)", re.MULTILINE)


def _changelog(root: Path) -> Path:
    return root / "CHANGELOG.md"
