"""A Python package as one file, for generated clients to carry.

The joined file begins with what `__init__.py` says and all imports, merged; the other modules follow, each after those
that it imports. They share one namespace there: so a module imports at its top, another module of the package only as
`from .module import Name`, and no two give a name different meanings.
"""

import ast
import symtable
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.codegen.errors import RuntimeNotJoinable


@dataclass(frozen=True, kw_only=True)
class _Module:
    """A module, taken apart."""

    name: str
    docstring: str
    #: Of other packages.
    imports: list[ast.Import | ast.ImportFrom]
    #: Of modules of this package.
    siblings: list[ast.ImportFrom]
    #: The source after all these.
    body: str


def join(package: Path) -> str:
    """The package's source as one file; the same sources give the same bytes. Raises RuntimeNotJoinable, OSError."""
    modules: dict[str, _Module] = {}
    _collect(package, "__init__", (), modules)
    _check_names(modules)
    *others, front = modules.values()
    bodies = [front.body, *(f"\n{module.body}" for module in others)]
    return "\n\n".join([front.docstring, *_merged_imports(modules), *bodies]) + "\n"


def _collect(package: Path, name: str, importers: tuple[str, ...], modules: dict[str, _Module]) -> None:
    """Adds a module after all that it imports."""
    if name in importers:
        raise RuntimeNotJoinable(f"{package.name}: {' imports '.join((*importers, name))}.")
    if name not in modules:
        module = _take_apart(name, (package / f"{name}.py").read_text(encoding="utf-8"))
        for sibling in module.siblings:
            _collect(package, str(sibling.module), (*importers, name), modules)
        modules[name] = module


def _take_apart(name: str, source: str) -> _Module:
    tree, lines = ast.parse(source), source.split("\n")
    docstring, *code = tree.body
    imports = [node for node in code if isinstance(node, ast.Import | ast.ImportFrom)]
    siblings = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    begin = imports[-1].end_lineno if imports else docstring.end_lineno
    if ast.get_docstring(tree) is None or code[: len(imports)] != imports or not set(siblings) <= set(imports):
        raise RuntimeNotJoinable(f"{name}.py does not begin with its docstring and all imports.")
    return _Module(
        name=name,
        docstring="\n".join(lines[: docstring.end_lineno]),
        imports=[node for node in imports if node not in siblings],
        siblings=siblings,
        body="\n".join(lines[begin:]).strip("\n"),
    )


def _merged_imports(modules: dict[str, _Module]) -> Iterator[str]:
    """The lines of `from __future__`, then those of all other imports, each name once."""
    plain: set[str] = set()
    named: defaultdict[str, set[str]] = defaultdict(set)
    for node in (node for module in modules.values() for node in module.imports):
        names = {ast.unparse(alias) for alias in node.names}
        if isinstance(node, ast.Import):
            plain |= names
        else:
            named[str(node.module)] |= names
    future = named.pop("__future__", set())
    if future:
        yield f"from __future__ import {', '.join(sorted(future))}"
    yield "\n".join(
        [f"import {name}" for name in sorted(plain)]
        + [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(named.items())]
    )


def _check_names(modules: dict[str, _Module]) -> None:
    """Raises RuntimeNotJoinable where a name would mean something else in the joined file than in its module."""
    meanings: dict[str, str] = {}
    for module in modules.values():
        for name, meaning in _names(module):
            if meanings.setdefault(name, meaning) != meaning:
                raise RuntimeNotJoinable(f"{name} is {meanings[name]}, and {meaning}.")
    for module in modules.values():
        for node in module.siblings:
            for alias in node.names:
                if alias.asname or meanings.get(alias.name) != f"defined in {node.module}.py":
                    raise RuntimeNotJoinable(f"{module.name}.py: {ast.unparse(node)}: not a name defined there.")


def _names(module: _Module) -> Iterator[tuple[str, str]]:
    """The top-level names of a module, but for those of its siblings, and what each means."""
    for node in module.imports:
        for alias in node.names:
            package = alias.name.partition(".")[0]  # what `import package.module` binds
            source = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
            yield alias.asname or package, f"{source}import {alias.name if alias.asname or source else package}"
    for symbol in symtable.symtable(module.body, module.name, "exec").get_symbols():
        if symbol.is_assigned() or symbol.is_imported():
            yield symbol.get_name(), f"defined in {module.name}.py"
