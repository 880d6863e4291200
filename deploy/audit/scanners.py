"""pip-audit and npm audit over what is locked, less what may pass for a while."""

import json
import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

#: From this severity on a finding of npm fails: its packages build, lint and test, none of them is delivered.
_FAILING = ("high", "critical")


class UnreachableError(Exception):
    """No list of vulnerabilities was to be had, so nothing is known."""


def python_packages(pip_audit: Path, lock: Path, passing: Collection[str]) -> list[str]:
    """What is wrong with the packages of a lock file, a line each. Raises UnreachableError."""
    # --strict: a package about which nothing could be learnt is a failure, not a warning.
    argv = [str(pip_audit), "--strict", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    ignored = [option for one in sorted(passing) for option in ("--ignore-vuln", one)]
    ended = subprocess.run(  # noqa: S603 - of our own making
        [*argv, "--format", "json", "--requirement", str(lock), *ignored], check=False, capture_output=True, text=True
    )
    if not ended.stdout.strip():
        raise UnreachableError(f"pip-audit says nothing about {lock.name}: {ended.stderr.strip()[-500:]}")
    return [
        f"{lock.name}: {package['name']} {package['version']}: {found['id']}, mended in {found['fix_versions']}"
        for package in json.loads(ended.stdout)["dependencies"]
        for found in package.get("vulns", ())
    ]


def node_packages(npm: str, folder: Path, passing: Collection[str]) -> list[str]:
    """The same of a folder with a package-lock.json."""
    argv = [npm, "audit", "--json", "--prefix", str(folder)]
    ended = subprocess.run(argv, check=False, capture_output=True, text=True)  # noqa: S603 - of our own making
    try:
        report = json.loads(ended.stdout)
        found = sorted(set(_advisories(report["vulnerabilities"])))
    except (ValueError, KeyError) as error:
        raise UnreachableError(f"npm says nothing about {folder.name}: {ended.stderr.strip()[-500:]}") from error
    return [
        f"{folder.name}: {package}: {name} ({severity})" for package, name, severity in found if name not in passing
    ]


def _advisories(vulnerabilities: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Package, advisory and severity. What is only vulnerable through another package is told there."""
    for vulnerable in vulnerabilities.values():
        for cause in vulnerable["via"]:
            if isinstance(cause, dict) and cause["severity"] in _FAILING:
                yield cause["name"], cause["url"].rpartition("/")[2], cause["severity"]
