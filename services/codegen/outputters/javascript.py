"""JavaScript for browsers and Node: the bundled runtime, then `class Metrics` with one method a metric."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from services.codegen.domain import Definitions, Label, Metric, Options
from services.codegen.outputters.identifiers import camel_case
from services.codegen.outputters.rendering import environment, escape_invisible, readable_lines

#: The runtime's public members; what is private to it has no name that could clash.
_RUNTIME_MEMBERS = frozenset({"record", "flush", "close", "stats"})

#: What every object has, or would no longer be a plain object with: `await` takes whatever has a `then` for a promise.
_OBJECT_MEMBERS = frozenset(
    {"constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString", "valueOf"}
    | {"then", "toJSON"}
)

_MEMBERS = _RUNTIME_MEMBERS | _OBJECT_MEMBERS

#: What could end a script element, or make its text be read otherwise.
_MARKUP = re.compile("<(?=[/!]|script)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Method:
    """A metric as a method."""

    name: str
    metric: Metric

    @property
    def labels(self) -> str:
        """The type of `labels` in TypeScript's notation."""
        if not self.metric.labels:
            return "Record<string, never>"
        return f"{{ {'; '.join(map(_type_of_label, self.metric.labels))} }}"


def render(definitions: Definitions, options: Options, runtime: str) -> Iterator[str]:
    """The client's source. `runtime` is a bundle that declares `PulsegateRuntime` (`sdk/browser/README.md`)."""
    methods = (_Method(name=camel_case(metric.name, _MEMBERS), metric=metric) for metric in definitions.metrics)
    template = f"{options.packaging}{'.min' if options.minify else ''}.js.jinja2"
    return _TEMPLATES.get_template(template).generate(
        definitions=definitions, options=options, runtime=runtime.strip("\n"), methods=methods
    )


def _type_of_label(label: Label) -> str:
    allowed = " | ".join(literal(value) for value in label.values) or "string"
    return f"{label.name}{'' if label.required else '?'}: {allowed}"


def literal(text: str) -> str:
    """The text as a string literal in double quotes that may stand in a script element or in a comment."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("<", "\\x3c").replace("*/", "*\\/")
    return f'"{escape_invisible(escaped, _escape)}"'


def _escape(code_point: int) -> str:
    return f"\\x{code_point:02x}" if code_point < 0x100 else f"\\u{{{code_point:x}}}"


def documentation(text: str) -> str:
    """The text as lines of a method's comment, without the first one's ` * `. Ends no comment, opens no JSDoc tag."""
    return "\n   * ".join(_in_comment(line) for line in readable_lines(text))


def _in_comment(line: str) -> str:
    safe = _MARKUP.sub("<\\\\", line.replace("*/", "*\\/"))
    return f"\\{safe}" if safe.startswith("@") else safe


_TEMPLATES = environment("javascript", {"literal": literal, "documentation": documentation})
