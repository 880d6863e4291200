"""The hand-written runtimes that generated clients build on, read from the SDK directory when first needed."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from services.codegen.errors import RuntimeMissing
from services.codegen.joining import join

#: A missing runtime may be built while the service runs.
_RETRY_AFTER_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A runtime's source."""

    text: str
    #: Of the text, 64 hexadecimal digits.
    sha256: str


class Runtimes:
    """The runtimes below one directory. Each is read once: another release is another process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[str, Runtime] = {}

    def get(self, path: str) -> Runtime:
        """The runtime at a path below the directory: a file, or a Python package, which is joined to one.

        Raises RuntimeMissing, RuntimeNotJoinable.
        """
        if path not in self._read:
            source = self._directory / path
            try:
                text = join(source) if source.is_dir() else source.read_text(encoding="utf-8")
            except OSError as error:
                raise RuntimeMissing(
                    f"The runtime {path} is not in PULSEGATE_SDK_DIRECTORY; make build makes it.",
                    retry_after_seconds=_RETRY_AFTER_SECONDS,
                ) from error
            self._read[path] = Runtime(text=text, sha256=hashlib.sha256(text.encode()).hexdigest())
        return self._read[path]

    def probe(self, *paths: str) -> Callable[[], Awaitable[None]]:
        """A health check: these runtimes are there."""

        async def check() -> None:
            for path in paths:
                self.get(path)

        return check
