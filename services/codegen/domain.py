"""What a client is generated from and what comes out: frozen values and pure rules."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Self

import msgspec

from chassis.errors import Invalid
from services.codegen.errors import ClientTooLarge, DefinitionNotRenderable

_METRIC_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
#: What may be written into code without a second thought; a query or a fragment would make no sense.
_ENDPOINT = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?")
_MOST_ENDPOINT_CHARACTERS = 2000
_PUBLISHABLE_KEY = re.compile(r"pk_[A-Za-z0-9_-]{1,200}")
#: What definitions of as many bytes as a project may have become, but not where most of them are very short values, or
#: all of their text has to be escaped.
MOST_CLIENT_BYTES = 12 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class MetricType(StrEnum):
    """What a metric's value means: an increment, a level, or one or more observations."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


class Language(StrEnum):
    """A language that clients are generated in."""

    JAVASCRIPT = "javascript"
    PYTHON = "python"


class Packaging(StrEnum):
    """How a client is loaded: as a module, or by a script tag, for which it sets globals."""

    MODULE = "module"
    SCRIPT = "script"


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label of a metric."""

    name: str
    required: bool = False
    #: Allowed values; empty: any that matches the pattern.
    values: tuple[str, ...] = ()
    #: Empty: any.
    pattern: str = ""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric definition, as far as code depends on it."""

    #: UUIDv7: ids sort by creation.
    id: str
    name: str
    type: MetricType
    help: str
    unit: str = ""
    labels: tuple[Label, ...] = ()

    @property
    def has_required_labels(self) -> bool:
        return any(label.required for label in self.labels)


@dataclass(frozen=True, kw_only=True)
class Definitions:
    """The validated definitions of one project."""

    project_id: str
    #: Sorted by name. Whoever goes through them keeps none: all together they may take up a lot of memory.
    metrics: Iterable[Metric]
    #: SHA-256 over all of it, 64 hexadecimal digits.
    fingerprint: str = ""

    @classmethod
    def of(cls, project_id: str, metrics: Iterable[Metric]) -> Self:
        """`metrics`, sorted by name, are gone through more than once.

        Raises DefinitionNotRenderable where a name could not be one in code, or is there twice.
        """
        fingerprint = hashlib.sha256(msgspec.json.encode(project_id))
        last_name = ""
        for metric in metrics:
            _require_renderable(metric)
            if metric.name <= last_name:
                raise DefinitionNotRenderable("Two definitions of the project have the same name.")
            last_name = metric.name
            fingerprint.update(msgspec.json.encode(metric))
        return cls(project_id=project_id, metrics=metrics, fingerprint=fingerprint.hexdigest())


def _require_renderable(metric: Metric) -> None:
    labels = [label.name for label in metric.labels]
    if not _METRIC_NAME.fullmatch(metric.name) or len(set(labels)) != len(labels):
        raise DefinitionNotRenderable(f"The definition with the id {metric.id} cannot be put into code.")
    if not all(map(_LABEL_NAME.fullmatch, labels)):
        raise DefinitionNotRenderable(f"A label of {metric.name} cannot be put into code.")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a caller may choose. Made by `of`."""

    language: Language
    #: Where the client sends to.
    endpoint: str
    #: A publishable key that is embedded; empty: none.
    key: str = ""
    minify: bool = False
    packaging: Packaging = Packaging.MODULE

    @classmethod
    def of(cls, *, language: Language, endpoint: str, key: str, minify: bool, packaging: Packaging) -> Self:
        """Normalised: what makes no difference is left out. Raises VALIDATION_FAILED with every member at fault."""
        faults = {}
        if len(endpoint) > _MOST_ENDPOINT_CHARACTERS or not _ENDPOINT.fullmatch(endpoint):
            faults["endpoint"] = "must be an http or https address without user, query or fragment"
        if key and not _PUBLISHABLE_KEY.fullmatch(key):
            faults["publishableKey"] = "must be a publishable key (pk_…): only those may be embedded in code"
        if faults:
            raise Invalid.fields(faults)
        options = cls(language=language, endpoint=endpoint.rstrip("/"), key=key, minify=minify, packaging=packaging)
        if language is Language.PYTHON:
            return replace(options, minify=False, packaging=Packaging.MODULE)
        return options


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A generated client."""

    content: bytes
    content_type: str
    file_name: str
    #: Of the content, 64 hexadecimal digits.
    sha256: str

    @classmethod
    def of(cls, source: Iterable[str], *, content_type: str, file_name: str) -> Self:
        """Takes no more of the source than it may have. Raises ClientTooLarge."""
        content = bytearray()
        for part in source:
            content += part.encode("utf-8")
            if len(content) > MOST_CLIENT_BYTES:
                raise ClientTooLarge(MOST_CLIENT_BYTES)
        sha256 = hashlib.sha256(content).hexdigest()
        return cls(content=bytes(content), content_type=content_type, file_name=file_name, sha256=sha256)


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long and how many generated clients are kept; see settings.py."""

    unused_for: timedelta
    most_per_project: int
    most_tenant_bytes: int

    @property
    def most_project_bytes(self) -> int:
        """A quarter of what the tenant's may take: one project leaves something for others."""
        return self.most_tenant_bytes // 4


def input_hash(definitions_digest: str, options: Options, generator: str) -> str:
    """The hash of everything that decides a client's bytes; `generator` stands for templates, code and runtime."""
    return hashlib.sha256(msgspec.json.encode((definitions_digest, options, generator))).hexdigest()


def is_sha256(text: str) -> bool:
    """Whether the text is a SHA-256 as 64 small hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None
