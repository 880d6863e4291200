"""`python -m services.codegen` serves; `… migrate` brings its schema up to date."""

import sys

from chassis import runner
from services.codegen.app import MIGRATIONS, running
from services.codegen.settings import Settings


def main(arguments: list[str]) -> None:
    """Runs what the arguments name."""
    match arguments:
        case []:
            runner.run("codegen", Settings, running)
        case ["migrate"]:
            runner.migrate("codegen", MIGRATIONS)
        case _:
            raise SystemExit("usage: python -m services.codegen [migrate]")


if __name__ == "__main__":
    main(sys.argv[1:])
