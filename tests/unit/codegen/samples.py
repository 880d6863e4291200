"""Definitions to generate clients from, runtimes that only take notes, and hypothesis strategies for hostile text."""

from pathlib import Path

from hypothesis import strategies as st

from services.codegen import outputters
from services.codegen.domain import Definitions, Label, Language, Metric, MetricType, Options, Packaging
from services.codegen.runtimes import Runtimes

CHECKOUT = Path(__file__).resolve().parents[3]
PROJECT = "0192f0c1-0000-7000-8000-000000000002"
KEY = "pk_0123456789abcdefghijklmnopqrstuvwxyzAB"
ENDPOINT = "https://metrics.example.com"

#: Keeps what is recorded in `calls`.
PYTHON_RUNTIME = """
from __future__ import annotations

from typing import Any, Callable

__all__ = ["Client"]


class Client:
    def __init__(
        self, endpoint: str, key: str, *, timeout_seconds: float = 10.0, on_drop: Callable[[str], None] | None = None
    ) -> None:
        self.calls = []

    def record(self, name, value, labels=None, timestamp=None, kind=None) -> None:
        self.calls.append((name, value, labels or {}, timestamp, kind))

    def _refuse(self, name: str, error: TypeError) -> None:
        self.calls.append((name, error))

    def flush(self) -> bool: ...

    @property
    def stats(self) -> Any: ...
"""

JAVASCRIPT_RUNTIME = """
var PulsegateRuntime;
(() => {
  class Client {
    constructor(options) { Client.options = options; Client.calls = []; }
    record(...call) { Client.calls.push(call); }
  }
  PulsegateRuntime = { Client, tolerate() {} };
})();
"""


def metric(name: str, kind: str = "counter", *labels: Label, age: int = 0, unit: str = "", help: str = "") -> Metric:  # noqa: A002
    """A definition; the higher the `age`, the newer."""
    return Metric(
        id=f"{age:04}", name=name, type=MetricType(kind), unit=unit, labels=labels, help=help or f"What {name} says."
    )


def definitions(*metrics: Metric) -> Definitions:
    return Definitions.of(PROJECT, sorted(metrics, key=lambda metric: metric.name))


def generate(
    *metrics: Metric,
    language: Language = Language.PYTHON,
    key: str = KEY,
    minify: bool = False,
    packaging: Packaging = Packaging.MODULE,
    runtime: str = "",
) -> str:
    """A client, of the note-taking runtime unless another is given."""
    options = Options.of(language=language, endpoint=ENDPOINT, key=key, minify=minify, packaging=packaging)
    runtime = runtime or (PYTHON_RUNTIME if language is Language.PYTHON else JAVASCRIPT_RUNTIME)
    return outputters.render(definitions(*metrics), options, runtime).content.decode()


def real_runtime(language: Language, *, minify: bool = False) -> str:
    """The runtime as it is shipped."""
    options = Options.of(language=language, endpoint=ENDPOINT, key="", minify=minify, packaging=Packaging.MODULE)
    return Runtimes(CHECKOUT / "sdk").get(outputters.OUTPUTS[language].runtime_path(options)).text


#: What breaks out of comments, strings, docstrings and script elements where nobody has thought of it.
HOSTILE = [
    *(
        '"""',
        "'''",
        '"',
        "'",
        "`",
        "\\",
        "\\\\",
        '\\"',
        "\\u0041",
        "\\N{DASH}",
        "\\x",
        "{{ 7 * 7 }}",
        "{% raw %}",
        "{#",
    ),
    *("*/", "*\\/", "/*", "//", "#", "</script>", "</SCRIPT >", "<!--", "-->", "<script>", "]]>", "${x}", "%s", "{x}"),
    *(
        "\n",
        "\r",
        "\r\n",
        "\0",
        "\x1b[31m",
        "\u2028",
        "\u2029",
        "\u202e",
        "\u200b",
        "\ufeff",
        "\x85",
        "\x0c",
        "é",
        "日本",
        "😀",
    ),
    *(
        "@param {number} x",
        "\n@type {any}",
        "@ts-ignore",
        "@overload",
        "{@link x}",
        "*/ throw 1; /*",
        '"""\nraise X\n"""',
    ),
    *("import os", "globalThis.pwned = 1", "\\\n", "\\\r\n", "type: ignore", "# noqa"),
]

hostile_text = st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=5)), max_size=6).map("".join)

_TAKEN = [
    *(
        "record",
        "flush",
        "close",
        "stats",
        "calls",
        "constructor",
        "then",
        "toString",
        "hasOwnProperty",
        "str",
        "Literal",
    ),
    *(
        "class",
        "None",
        "async",
        "self",
        "value",
        "timestamp",
        "labels",
        "options",
        "_given",
        "float",
        "Metrics",
        "Client",
    ),
    *("_", "_a", "a_b", "aB", "a__b", "a_b_", "mro", "super", "delete", "arguments", "measure", "Optional", "_stats"),
]

names = st.one_of(st.sampled_from(_TAKEN), st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,12}", fullmatch=True))

labels = st.builds(
    Label,
    name=names.filter(lambda name: not name.startswith("__")),
    required=st.booleans(),
    values=st.lists(hostile_text, max_size=3, unique=True).map(tuple),
    pattern=hostile_text,
)

metrics = st.lists(
    st.builds(
        Metric,
        id=st.uuids(version=4).map(str),
        name=names,
        type=st.sampled_from(MetricType),
        help=hostile_text,
        unit=hostile_text,
        labels=st.lists(labels, max_size=4, unique_by=lambda label: label.name).map(tuple),
    ),
    max_size=6,
    unique_by=lambda metric: metric.name,
)
