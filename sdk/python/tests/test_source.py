"""The runtime's source: what old interpreters rely on."""

import ast
from pathlib import Path
from typing import Iterator

import pytest

import pulsegate_runtime

SOURCES = sorted(Path(pulsegate_runtime.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_syntax_is_that_of_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_only_the_standard_library_is_imported(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known = """__future__ atexit codecs collections contextlib dataclasses datetime email fcntl gzip http json logging
        math msvcrt os pathlib queue random re stat sys threading time typing urllib uuid weakref"""
    assert {name.partition(".")[0] for name in imported(tree)} <= set(known.split())


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules that are imported, but for those of the runtime itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
