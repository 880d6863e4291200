"""The list of hostile input names tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[2]
LIST = TESTS.parent / "docs/security-tests.md"


def test_every_line_of_the_list_names_tests_that_exist() -> None:
    lines = [line for line in LIST.read_text().splitlines() if line.startswith("| ") and "what comes" not in line]
    lines = [line for line in lines if not line.startswith("| ---")]
    assert len(lines) >= 30
    for line in lines:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", line)
        assert named, f"no test is named by: {line}"
        for path, name in named:
            assert f"def {name}(" in (TESTS / path).read_text(), f"{path} has no {name}"
