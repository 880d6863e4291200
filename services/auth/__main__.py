"""`python -m services.auth` serves; `… migrate` brings its schema up to date, `… verify-audit` checks the audit log."""

import sys
from pathlib import Path

from chassis import runner
from services.auth.app import MIGRATIONS, running
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
            lines = runner.run_loop(verify(settings, map(Path, exports)))
            sys.stdout.write("".join(f"{line}\n" for line in lines))
        case _:
            raise SystemExit("usage: python -m services.auth [migrate | verify-audit [export …]]")


if __name__ == "__main__":
    main(sys.argv[1:])
