"""Passwords and keys of one embedded stack: generated once, kept in files that only their owner reads."""

import base64
import os
import secrets
from collections.abc import Callable
from pathlib import Path


class SecretFolder:
    """One file a secret."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def password(self, name: str) -> str:
        """A random password that is safe inside an address."""
        return self.kept(name, lambda: secrets.token_urlsafe(24))

    def key(self, name: str) -> Path:
        """The file of a random 32-byte key, base64url."""
        self.kept(name, lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
        return self.path(name)

    def write(self, name: str, text: str) -> Path:
        """Keeps a text, such as an address with its password, and returns its file."""
        path = self.path(name)
        write_private(path, text)
        return path

    def path(self, name: str) -> Path:
        """Where a secret is, or will be."""
        return self._folder / name

    def kept(self, name: str, generate: Callable[[], str]) -> str:
        """A text that is generated once."""
        path = self.path(name)
        if not path.exists():
            write_private(path, generate())
        return path.read_text(encoding="utf-8")


def write_private(path: Path, text: str) -> None:
    """Replaces a file in one step; nobody else can read it at any time."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
