"""What helps somebody who was not there to understand what is wrong, without a secret in it."""

import io
import json
import platform
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from chassis.logs import REDACTED, redact_text
from pulsegate import doctor, status
from pulsegate.installation import Installation
from pulsegate.new_files import new_file
from pulsegate.observation import fetched

_LOG_BYTES = 1 << 20
#: Shorter texts stand everywhere by chance.
_LEAST_SECRET_LENGTH = 8
_PASSWORD = re.compile(r"://[^:/@\s,]*:([^@/\s]+)@")


def make(installation: Installation, path: Path) -> list[str]:
    """Writes a bundle, which nobody else may read; returns the names of what is in it.

    Raises FileExistsError.
    """
    names = []
    with new_file(path) as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in _contents(installation):
            content = _without_secrets(text, installation).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            names.append(name)
    return names


def _without_secrets(text: str, installation: Installation) -> str:
    """Line by line, as logs are redacted; and whatever is known to be a secret here."""
    for secret in sorted(_secrets(installation), key=len, reverse=True):
        if len(secret) >= _LEAST_SECRET_LENGTH:
            text = text.replace(secret, REDACTED)
    return "\n".join(map(redact_text, text.split("\n")))


def _secrets(installation: Installation) -> set[str]:
    whole = {installation.database, installation.nats, *installation.owners.values(), *installation.secrets}
    return whole.union(*map(_passwords, {*whole, installation.prometheus, installation.sink}))


def _passwords(address: str) -> set[str]:
    """Those inside of an address, or of several, as they are written there and as they are."""
    found = set(_PASSWORD.findall(address))
    found |= set(map(unquote, found))
    with suppress(psycopg.ProgrammingError):  # it is not libpq's
        found.add(str(conninfo_to_dict(address).get("password", "")))
    return found


def _contents(installation: Installation) -> Iterator[tuple[str, str]]:
    yield "machine.json", json.dumps({"python": platform.python_version(), "system": platform.platform()})
    found = status.processes(installation)
    yield "status.txt", "\n".join(status.lines(installation, found))
    found_wrong = [f"{each.what}\n  {each.remedy}" for each in doctor.findings(installation)]
    yield "doctor.txt", "\n".join(found_wrong + [f"not asked: {each}" for each in doctor.unasked(installation)])
    for name, address in installation.processes.items():
        yield f"{name}/ready.json", fetched(f"{address}/health/ready")[1]
        yield f"{name}/metrics.txt", fetched(f"{address}/metrics")[1]
    for page in ("rules", "alerts", "targets", "status/flags", "status/config", "status/buildinfo"):
        yield f"prometheus/{page.replace('/', '-')}.json", fetched(f"{installation.prometheus}/api/v1/{page}")[1]
    if installation.logs is not None:
        for log in sorted(installation.logs.glob("*.log")):
            yield f"logs/{log.name}", _end_of(log)


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_BYTES))
        return file.read().decode(errors="replace")
