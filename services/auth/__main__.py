"""`python -m services.auth` runs the service; `python -m services.auth migrate` brings its schema up to date."""

import sys

from chassis import runner
from services.auth.app import MIGRATIONS, running
from services.auth.settings import Settings


def main(arguments: list[str]) -> None:
    """Runs what the arguments name."""
    if arguments == ["migrate"]:
        runner.migrate("auth", MIGRATIONS)
    elif arguments:
        raise SystemExit("usage: python -m services.auth [migrate]")
    else:
        runner.run("auth", Settings, running)


if __name__ == "__main__":
    main(sys.argv[1:])
