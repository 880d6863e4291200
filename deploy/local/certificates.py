"""Certificates for the services of one embedded stack, where it is asked for mutual TLS between them."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chassis.callers import INSIDE
from deploy.local.authority import Authority
from deploy.local.progress import say
from deploy.local.secrets import write_private

DOMAIN = "pulsegate.internal"

#: Those who speak to each other; the last is for what sends metrics without the gateway.
NAMES = ("gateway", "auth", "config", "codegen", "receiver", INSIDE)

_LIFE = timedelta(hours=24)
_RENEWED_AFTER = timedelta(hours=8)
#: By the clock on the wall, which goes on while a machine sleeps.
_LOOK_SECONDS = 60.0


class Certificates:
    """A folder for each service, with its certificate, its key, and the authority of this start of the stack."""

    def __init__(self, folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Issues the first ones. Raises OSError where they cannot be written."""
        self._folder = folder
        self._now = now
        self._authority = Authority.new("Pulsegate on this machine", now())
        self._issue()

    def _issue(self) -> None:
        self._issued_at = self._now()
        for name in NAMES:
            folder = self._folder / name
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            leaf = self._authority.issue(f"{name}.{DOMAIN}", now=self._issued_at, life=_LIFE)
            write_private(folder / "authorities.pem", self._authority.pem.decode())
            write_private(folder / "key.pem", leaf.key.decode())
            write_private(folder / "certificate.pem", leaf.certificate.decode())

    def renew(self) -> None:
        """Issues new ones where it is time for it."""
        if self._now() - self._issued_at >= _RENEWED_AFTER:
            self._issue()

    async def renewing(self) -> None:
        """Keeps them new, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await asyncio.to_thread(self.renew)
            except OSError as error:
                self._issued_at -= _RENEWED_AFTER  # some of them may be old
                say(f"The certificates could not be renewed ({error.strerror}: {error.filename}); tried again soon")

    def settings(self, name: str) -> dict[str, str]:
        """What the process of that name is told."""
        folder = self._folder / name
        return {
            "PULSEGATE_MTLS_CERTIFICATE_PATH": str(folder / "certificate.pem"),
            "PULSEGATE_MTLS_KEY_PATH": str(folder / "key.pem"),
            "PULSEGATE_MTLS_CA_PATH": str(folder / "authorities.pem"),
            "PULSEGATE_MTLS_DOMAIN": DOMAIN,
        }
