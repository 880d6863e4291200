"""Renderers: one table of languages, one module and one template folder each.

To add a language, write its module and templates, put its runtime into `sdk/`, and add a row to `OUTPUTS`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.codegen.domain import Artifact, Definitions, Language, Options, Packaging
from services.codegen.outputters import javascript, python
from services.codegen.outputters.rendering import TEMPLATES


@dataclass(frozen=True, kw_only=True)
class Output:
    """How clients of one language are made."""

    #: (definitions, options, the runtime's source) → the client's source, part by part. Pure.
    render: Callable[[Definitions, Options, str], Iterable[str]]
    #: Where the runtime is, below the SDK directory.
    runtime_path: Callable[[Options], str]
    file_name: Callable[[Options], str]
    content_type: str


OUTPUTS: Mapping[Language, Output] = {
    Language.PYTHON: Output(
        render=python.render,
        runtime_path=lambda _: "python/pulsegate_runtime",
        file_name=lambda _: "pulsegate_metrics.py",
        content_type="text/x-python; charset=utf-8",
    ),
    Language.JAVASCRIPT: Output(
        render=javascript.render,
        runtime_path=lambda options: f"browser/dist/runtime{'.min' if options.minify else ''}.js",
        file_name=lambda options: (
            f"pulsegate-metrics{'.min' if options.minify else ''}"
            f"{'.js' if options.packaging is Packaging.SCRIPT else '.mjs'}"
        ),
        content_type="text/javascript; charset=utf-8",
    ),
}


def render(definitions: Definitions, options: Options, runtime: str) -> Artifact:
    """The client, ready to be published. Raises ClientTooLarge."""
    output = OUTPUTS[options.language]
    source = output.render(definitions, options, runtime)
    return Artifact.of(source, content_type=output.content_type, file_name=output.file_name(options))


def _digest_of_sources() -> str:
    """SHA-256 of the code and templates that make clients: other sources, other clients."""
    here = Path(__file__).resolve().parent
    sources = [*sorted(here.glob("*.py")), here.parent / "domain.py", *sorted(TEMPLATES.rglob("*.jinja2"))]
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()


SOURCES_DIGEST = _digest_of_sources()
