"""A package as one file: what it says, and what cannot be said in one file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from services.codegen.domain import Language
from services.codegen.errors import RuntimeNotJoinable
from services.codegen.joining import join
from tests.unit.codegen.samples import generate, metric, real_runtime

_INIT = '"""Greets."""\n\nfrom .greeting import greet\n\n__all__ = ["greet"]\n'
_GREETING = '''"""Greetings."""

from __future__ import annotations

import os.path
from typing import List, Sequence

from .words import HELLO

_NAMES: List[str] = []  # of those greeted


def greet(names: Sequence[str]) -> str:
    _NAMES.extend(names)
    return os.path.join(HELLO, *names)
'''
_WORDS = '''"""Words."""

from __future__ import annotations

import os
import sys
from typing import Final

# Other words elsewhere.
if sys.platform == "win32":
    import msvcrt
else:
    HELLO: Final = "hello" + os.curdir
'''


def _package(folder: Path, **modules: str) -> Path:
    package = folder / "greetings"
    package.mkdir()
    for name, source in {"__init__": _INIT, "greeting": _GREETING, "words": _WORDS, **modules}.items():
        (package / f"{name}.py").write_text(source, encoding="utf-8")
    return package


def test_modules_follow_what_they_import_and_share_one_list_of_imports(tmp_path: Path) -> None:
    assert (
        join(_package(tmp_path))
        == '''"""Greets."""

from __future__ import annotations

import os
import os.path
import sys
from typing import Final, List, Sequence

__all__ = ["greet"]


# Other words elsewhere.
if sys.platform == "win32":
    import msvcrt
else:
    HELLO: Final = "hello" + os.curdir


_NAMES: List[str] = []  # of those greeted


def greet(names: Sequence[str]) -> str:
    _NAMES.extend(names)
    return os.path.join(HELLO, *names)
'''
    )


@pytest.mark.parametrize(
    ("module", "before", "after", "fault"),
    [
        pytest.param("words", "HELLO: Final", "_NAMES = HELLO", "_NAMES is defined in words.py", id="same name twice"),
        pytest.param("words", "import os\n", "import posixpath as os\n", "os is import posixpath", id="another import"),
        pytest.param("words", "import os\n", "import os, typing as _NAMES\n", "_NAMES is", id="an import and a name"),
        pytest.param("words", "import sys\n", "import sys\nfrom .greeting import greet\n", "imports", id="in a circle"),
        pytest.param("greeting", "import HELLO", "import HELLO as HI", "not a name defined there", id="renamed"),
        pytest.param("greeting", "import HELLO", "import sys", "not a name defined there", id="at second hand"),
        pytest.param("greeting", '"""Greetings."""', "", "docstring", id="no docstring"),
        pytest.param("greeting", "_NAMES:", "_LATE = 1\nimport re\n_NAMES:", "all imports", id="a late import"),
        pytest.param(
            "greeting", "    _NAMES", "    from .words import HELLO\n    _NAMES", "all imports", id="a hidden one"
        ),
    ],
)
def test_what_would_mean_something_else_in_one_file_is_refused(
    tmp_path: Path, module: str, before: str, after: str, fault: str
) -> None:
    package = _package(tmp_path)
    source = (package / f"{module}.py").read_text()
    assert before in source
    (package / f"{module}.py").write_text(source.replace(before, after))
    with pytest.raises(RuntimeNotJoinable, match=fault):
        join(package)


def test_the_runtime_leaves_generated_names_alone_and_exports_its_own(tmp_path: Path) -> None:
    runtime = real_runtime(Language.PYTHON)
    defined = {node.name for node in ast.parse(runtime).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    assert not defined & {"Metrics", "_given"}

    (tmp_path / "pulsegate_metrics.py").write_text(generate(metric("jobs_total"), runtime=runtime), encoding="utf-8")
    program = "from pulsegate_metrics import *; print(sorted(name for name in dir() if name[0] != '_'))"
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=110, capture_output=True)
    assert run.stdout.decode().strip() == "['Client', 'Metrics', 'Stats']"


def test_the_runtime_in_one_file_has_lines_of_bearable_length() -> None:
    assert max(map(len, real_runtime(Language.PYTHON).splitlines())) <= 120
