"""`python -m services.config` serves; `… migrate` brings its schema up to date."""

import sys

from chassis import runner
from services.config.app import MIGRATIONS, running
from services.config.settings import Settings


def main(arguments: list[str]) -> None:
    """Runs what the arguments name."""
    match arguments:
        case []:
            runner.run("config", Settings, running)
        case ["migrate"]:
            runner.migrate("config", MIGRATIONS)
        case _:
            raise SystemExit("usage: python -m services.config [migrate]")


if __name__ == "__main__":
    main(sys.argv[1:])
