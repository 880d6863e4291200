"""What the demo has sent in all, kept in the data folder: the next run is compared with it, not with what arrived."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from deploy.local.secrets import write_private


class Ledger:
    """Totals by selector in one file, which is away during traffic: a run that is interrupted leaves none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> dict[str, float] | None:
        """The totals, which are unknown to the next run until they are closed; None where they are unknown now."""
        totals: dict[str, float] | None = None
        with suppress(FileNotFoundError):
            totals = json.loads(self._path.read_text(encoding="utf-8"))
            self._path.unlink()
        return totals

    def close(self, totals: Mapping[str, float]) -> None:
        """Keeps the totals for the next run."""
        write_private(self._path, json.dumps(dict(totals), indent=2))
