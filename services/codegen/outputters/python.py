"""Python 3.8 or later: the runtime's source, then `class Metrics` with one method a metric, all in one file."""

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from services.codegen.domain import Definitions, Label, Metric, MetricType, Options
from services.codegen.outputters.identifiers import PYTHON_KEYWORDS, free, public
from services.codegen.outputters.rendering import environment, escape_invisible, readable_lines

#: What the template itself names within a method; labels must leave it alone.
_IN_METHODS = frozenset({"self", "value", "timestamp", "_given"}) | PYTHON_KEYWORDS

#: Types that the class's signatures name: a method of that name would hide them from type checkers.
_TYPES = frozenset({"Literal", "Optional", "Sequence", "Union", "Callable", "bool", "float", "int", "object", "str"})

_VALUE_PARAMETERS = {
    MetricType.COUNTER: "value: float = 1",
    MetricType.GAUGE: "value: float",
    MetricType.HISTOGRAM: "value: Union[float, Sequence[float]]",
    MetricType.SUMMARY: "value: Union[float, Sequence[float]]",
}


@dataclass(frozen=True, kw_only=True)
class _Parameter:
    """A label as a keyword-only parameter."""

    name: str
    #: With its type, and `= None` unless the label is required.
    declaration: str
    label: Label


@dataclass(frozen=True, kw_only=True)
class _Method:
    """A metric as a method."""

    name: str
    metric: Metric
    value: str
    parameters: tuple[_Parameter, ...]


def render(definitions: Definitions, options: Options, runtime: str) -> Iterator[str]:
    """The client's source. `runtime` is the package `sdk/python/pulsegate_runtime`, joined."""
    client = _client_class(runtime)
    taken = PYTHON_KEYWORDS | _TYPES | _attributes(client)
    return _TEMPLATES.get_template("client.py.jinja2").generate(
        definitions=definitions,
        options=options,
        runtime=runtime.strip("\n"),
        constructor=_options_of_constructor(client),
        methods=(_method(metric, free(public(metric.name), taken)) for metric in definitions.metrics),
    )


def _method(metric: Metric, name: str) -> _Method:
    parameters = tuple(_parameter(free(label.name, _IN_METHODS), label) for label in metric.labels)
    return _Method(name=name, metric=metric, value=_VALUE_PARAMETERS[metric.type], parameters=parameters)


def _parameter(name: str, label: Label) -> _Parameter:
    return _Parameter(name=name, declaration=f"{name}: {_type_of(label)}", label=label)


def _type_of(label: Label) -> str:
    allowed = f"Literal[{', '.join(map(literal, label.values))}]" if label.values else "str"
    return allowed if label.required else f"Optional[{allowed}] = None"


def literal(text: str) -> str:
    """The text as a string literal in double quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escape_invisible(escaped, _escape)}"'


def _escape(code_point: int) -> str:
    return f"\\x{code_point:02x}" if code_point < 0x100 else f"\\U{code_point:08x}"


def documentation(text: str) -> str:
    """The text as lines of a method's docstring, without the first line's indentation."""
    return "\n        ".join(line.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') for line in readable_lines(text))


@functools.lru_cache(maxsize=4)
def _client_class(runtime: str) -> ast.ClassDef:
    return next(node for node in ast.parse(runtime).body if isinstance(node, ast.ClassDef) and node.name == "Client")


def _attributes(client: ast.ClassDef) -> frozenset[str]:
    """Every attribute that the runtime's class defines, or sets on itself: a metric may not take its place."""
    defined = {node.name for node in client.body if isinstance(node, ast.FunctionDef)}
    stored = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(client)
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return frozenset(defined | stored)


def _options_of_constructor(client: ast.ClassDef) -> dict[str, str]:
    """The keyword-only parameters of the runtime's constructor: names, and declarations as they stand there."""
    init = next(node for node in client.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    declarations = {}
    for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
        suffix = f" = {ast.unparse(default)}" if default else ""
        declarations[argument.arg] = f"{ast.unparse(argument)}{suffix}"
    return declarations


_TEMPLATES = environment("python", {"literal": literal, "documentation": documentation})
