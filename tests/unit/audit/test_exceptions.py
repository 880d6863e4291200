"""Exceptions for known vulnerabilities have a reason and an end, and scanners that say nothing pass nothing."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from deploy.audit import exceptions, scanners

_TODAY = date(2026, 6, 1)
_FILE = Path(__file__).parents[3] / "requirements/exceptions.toml"


def _advisory(until: date, because: str = "We do not call it.") -> exceptions.Advisory:
    return exceptions.Advisory(id="GHSA-1", package="left-pad", because=because, until=until)


@pytest.mark.parametrize(
    ("advisory", "fault"),
    [
        (_advisory(_TODAY), ""),
        (_advisory(_TODAY + exceptions.LONGEST), ""),
        (_advisory(_TODAY - timedelta(days=1)), "ended on 2026-05-31"),
        (_advisory(_TODAY + exceptions.LONGEST + timedelta(days=1)), "90 days at most"),
        (_advisory(_TODAY, because=" "), "say why"),
    ],
)
def test_an_exception_has_a_reason_and_ends(advisory: exceptions.Advisory, fault: str) -> None:
    found = exceptions.faults([advisory], _TODAY)
    assert len(found) == bool(fault)
    assert all(fault in one for one in found)


def test_the_committed_exceptions_are_in_their_form() -> None:
    assert all(isinstance(one.until, date) for one in exceptions.parsed(_FILE.read_text()))


@pytest.mark.parametrize("text", ["[[exception]]\nid = 'x'", "exception", "[[exception]]\nid='x'\nuntill=2026-01-01"])
def test_what_is_no_exception_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"exceptions\.toml"):
        exceptions.parsed(text)


def _scanner(folder: Path, prints: str) -> Path:
    script = folder / "scanner"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{prints}\nEND\nexit 1\n")
    script.chmod(0o755)
    return script


def test_vulnerable_python_packages_are_named(tmp_path: Path) -> None:
    says = '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "GHSA-2", "fix_versions": ["2"]}]}]}'
    assert scanners.python_packages(_scanner(tmp_path, says), tmp_path / "dev.txt", []) == [
        "dev.txt: a 1: GHSA-2, mended in ['2']"
    ]


def test_vulnerable_node_packages_are_named_unless_they_may_pass(tmp_path: Path) -> None:
    says = """{"vulnerabilities": {
        "a": {"via": [{"name": "a", "severity": "high", "url": "https://github.com/advisories/GHSA-3"}]},
        "b": {"via": ["a", {"name": "b", "severity": "low", "url": "https://github.com/advisories/GHSA-4"}]}}}"""
    npm = str(_scanner(tmp_path, says))
    assert scanners.node_packages(npm, tmp_path, []) == [f"{tmp_path.name}: a: GHSA-3 (high)"]
    assert scanners.node_packages(npm, tmp_path, ["GHSA-3"]) == []


@pytest.mark.parametrize("says", ["", '{"error": {"summary": "405"}}'])
def test_a_scanner_that_learns_nothing_is_no_good_news(tmp_path: Path, says: str) -> None:
    with pytest.raises(scanners.UnreachableError):
        scanners.node_packages(str(_scanner(tmp_path, says)), tmp_path, [])
    with pytest.raises(scanners.UnreachableError):
        scanners.python_packages(_scanner(tmp_path, ""), tmp_path / "dev.txt", [])
