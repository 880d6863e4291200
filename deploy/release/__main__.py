"""python -m deploy.release prepare|check|notes v1.2.3, or smoke https://…; needs nothing but Python."""

import argparse
import datetime as dt
import os
import sys
from pathlib import Path

from deploy.release.smoke import SmokeError, smoke
from deploy.release.versions import ReleaseError, check, notes, prepare

_ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run what the command line asks for; 1 where it fails, and the reason on the standard error."""
    parser = argparse.ArgumentParser(prog="python -m deploy.release", description="Make a release, and try one.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("prepare", "write the version and today's date into the tree"),
        ("check", "see that the tree is this version, with notes"),
        ("notes", "print what the changelog says of it"),
    ):
        commands.add_parser(name, help=text).add_argument("tag", metavar="v1.2.3")
    trying = commands.add_parser("smoke", help="send to an installation and read back; the key is PULSEGATE_SMOKE_KEY")
    trying.add_argument("url", metavar="https://…")
    arguments = parser.parse_args()
    try:
        _run(arguments)
    except (ReleaseError, SmokeError) as error:
        print(f"{arguments.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _run(arguments: argparse.Namespace) -> None:
    if arguments.command == "prepare":
        prepare(_ROOT, arguments.tag, dt.datetime.now(dt.UTC).date())
    elif arguments.command == "check":
        check(_ROOT, arguments.tag)
    elif arguments.command == "notes":
        print(notes(_ROOT, arguments.tag), end="")
    else:
        print(smoke(arguments.url, os.environ.get("PULSEGATE_SMOKE_KEY", "")))


if __name__ == "__main__":
    sys.exit(main())
