"""`python -m services.auth` serves; `… migrate` brings its schema up to date, `… verify-audit` checks the audit log,
`… prune-audit` takes away what of it is old.
"""

import sys
from pathlib import Path

from chassis import runner
from chassis.clock import SystemClock
from services.auth.app import MIGRATIONS, running
from services.auth.audit_pruning import PruningSettings, prune
from services.auth.audit_verification import VerificationSettings, verify
from services.auth.settings import Settings


def main(arguments: list[str]) -> None:
    """Runs what the arguments name."""
    match arguments:
        case []:
            runner.run("auth", Settings, running)
        case ["migrate"]:
            runner.migrate("auth", MIGRATIONS)
        case ["verify-audit", *exports]:
            settings = runner.read_settings("auth verify-audit", VerificationSettings)
            _say(runner.run_loop(verify(settings, map(Path, exports))))
        case ["prune-audit", folder]:
            pruning = runner.read_settings("auth prune-audit", PruningSettings)
            _say(runner.run_loop(prune(pruning, Path(folder), SystemClock())))
        case _:
            raise SystemExit("usage: python -m services.auth [migrate | verify-audit [export …] | prune-audit FOLDER]")


def _say(lines: list[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main(sys.argv[1:])
