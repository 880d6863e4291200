"""`python -m services.codegen` serves; `python -m services.codegen migrate` brings the schema up to date."""

import sys

from chassis import runner
from services.codegen.app import MIGRATIONS, running
from services.codegen.settings import Settings


def main() -> None:
    match sys.argv[1:]:
        case []:
            runner.run("codegen", Settings, running)
        case ["migrate"]:
            runner.migrate("codegen", MIGRATIONS)
        case _:
            raise SystemExit("usage: python -m services.codegen [migrate]")


main()
