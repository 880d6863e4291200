"""`python -m services.auth` serves; `… migrate` brings its schema up to date, `… verify-audit` checks the audit log,
`… prune-audit` takes away what of it is old.
"""

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from chassis import runner
from chassis.clock import SystemClock
from chassis.errors import Unavailable
from services.auth.app import MIGRATIONS, running
from services.auth.audit_pruning import PruningSettings, prune
from services.auth.audit_verification import VerificationSettings, verify
from services.auth.settings import Settings

T = TypeVar("T")


def main(arguments: list[str]) -> None:
    """Runs what the arguments name."""
    match arguments:
        case []:
            runner.run("auth", Settings, running)
        case ["migrate"]:
            runner.migrate("auth", MIGRATIONS)
        case ["verify-audit", *exports]:
            settings = runner.read_settings("auth verify-audit", VerificationSettings)
            for line in _run(verify(settings, map(Path, exports))):
                _say(line)
        case ["prune-audit", folder]:
            pruning = runner.read_settings("auth prune-audit", PruningSettings)
            _run(prune(pruning, Path(folder), SystemClock(), _say))
        case _:
            raise SystemExit("usage: python -m services.auth [migrate | verify-audit [export …] | prune-audit FOLDER]")


def _run(command: Coroutine[Any, Any, T]) -> T:
    try:
        return runner.run_loop(command)
    except (Unavailable, OSError) as error:
        raise SystemExit(f"It could not go on: {error}") from error


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
