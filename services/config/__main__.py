"""`python -m services.config` runs the service; `python -m services.config migrate` brings its schema up to date."""

import sys

from chassis import runner
from services.config.app import MIGRATIONS, running
from services.config.settings import Settings


def main(arguments: list[str]) -> None:
    """Runs what the arguments name."""
    if arguments == ["migrate"]:
        runner.migrate("config", MIGRATIONS)
    elif arguments:
        raise SystemExit("usage: python -m services.config [migrate]")
    else:
        runner.run("config", Settings, running)


if __name__ == "__main__":
    main(sys.argv[1:])
