"""The runtime's source: what generated clients, and old interpreters, rely on."""

import ast
import subprocess
import sys
from pathlib import Path

import pulsegate_runtime

SOURCE = Path(pulsegate_runtime.__file__).read_text(encoding="utf-8")


def test_the_syntax_is_that_of_python_3_8() -> None:
    ast.parse(SOURCE, feature_version=(3, 8))


def test_only_the_standard_library_is_imported() -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(SOURCE))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    known = """__future__ atexit codecs collections contextlib dataclasses datetime email fcntl gzip http json logging
        math msvcrt os pathlib queue random re sys threading time typing urllib uuid weakref"""
    assert imported <= set(known.split())


def test_a_generated_module_may_begin_with_the_source_and_keeps_its_other_names_private(tmp_path: Path) -> None:
    generated = tmp_path / "generated.py"
    generated.write_text(f"# generated\n{SOURCE}\nclass Metrics(Client):\n    pass\n", encoding="utf-8")
    program = "from generated import *; from generated import Metrics; assert issubclass(Metrics, Client); print(Stats)"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=20)
    defined = {node.name for node in ast.parse(SOURCE).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    assert {name for name in defined if not name.startswith("_")} == set(pulsegate_runtime.__all__)
