"""Secrets that may change while a process runs, and a record of when each was read and from where, not of its value."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from chassis import file_versions, logs
from chassis.clock import Clock
from chassis.tasks import in_background
from chassis.vault import Reference, Vault, VaultError

log = logs.get(__name__)

#: How often is looked whether a file has changed, while its secret is being used.
_LOOK_SECONDS = 1.0
_VAULT_SECONDS = 60.0


class Followed:
    """A secret's value now. One that comes and cannot be used is told in the log, and the one before stays."""

    def __init__(self, setting: str, source: str, parse: Callable[[str], Any], text: str) -> None:
        """Raises what `parse` raises."""
        self.setting = setting
        self.source = source
        self._parse = parse
        self._text = text
        self._value = parse(text)

    def current(self) -> Any:
        return self._value

    def record(self) -> None:
        log.info("secret read", setting=self.setting, source=self.source)

    def take(self, text: str) -> None:
        if text == self._text:
            return
        self._text = text
        try:
            self._value = self._parse(text)
        except ValueError as error:
            log.warning("a new secret is not taken", setting=self.setting, source=self.source, reason=str(error))
        else:
            self.record()


class SecretFile(Followed):
    """A secret in a file, which is looked at again while it is used."""

    def __init__(self, setting: str, path: Path, parse: Callable[[str], Any]) -> None:
        """Raises ValueError where the file cannot be read or its text used."""
        self._path = path
        self._seen = file_versions.versions(path)
        self._looked_at = time.monotonic()
        super().__init__(setting, str(path), parse, read(setting, path))

    def current(self) -> Any:
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            self._look()
        return self._value

    def _look(self) -> None:
        seen = file_versions.versions(self._path)
        if seen == self._seen:
            return
        try:
            self.take(read(self.setting, self._path))
        except ValueError as error:
            log.warning("a secret's file cannot be read", setting=self.setting, reason=str(error))
        self._seen = seen


def read(setting: str, path: Path) -> str:
    """The text of a secret's file without its line end. Raises ValueError."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the file named by {setting}_FILE cannot be read ({type(error).__name__})") from error


class VaultSecret(Followed):
    """A secret in Vault, which is asked for it again and again."""

    def __init__(self, setting: str, reference: Reference, parse: Callable[[str], Any], vault: Vault) -> None:
        """Blocks. Raises ValueError where Vault does not give it or its text cannot be used."""
        self._reference = reference
        self._vault = vault
        super().__init__(setting, str(reference), parse, self._ask())

    def _ask(self) -> str:
        try:
            return self._vault.read(self._reference)
        except VaultError as error:
            raise ValueError(str(error)) from error

    def refresh(self) -> None:
        """Asks Vault again; blocks."""
        try:
            self.take(self._ask())
        except ValueError as error:
            log.warning("a secret could not be read again", setting=self.setting, reason=str(error))


@asynccontextmanager
async def followed(secrets: Collection[Followed], clock: Clock) -> AsyncIterator[None]:
    """Records what was read at the start, and asks Vault again while open."""
    for secret in secrets:
        secret.record()
    of_vault = [secret for secret in secrets if isinstance(secret, VaultSecret)]
    async with in_background(*([_refreshing(of_vault, clock)] if of_vault else [])):
        yield


async def _refreshing(secrets: Collection[VaultSecret], clock: Clock) -> None:
    while True:
        await clock.sleep(_VAULT_SECONDS)
        for secret in secrets:
            await asyncio.to_thread(secret.refresh)
