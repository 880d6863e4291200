"""Known vulnerabilities that may pass for a while (`requirements/exceptions.toml`)."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

LONGEST = timedelta(days=90)


@dataclass(frozen=True, kw_only=True)
class Advisory:
    """One that lets one known vulnerability pass."""

    #: As the scanner names it, such as GHSA-xxxx-xxxx-xxxx.
    id: str
    package: str
    because: str
    #: The last day.
    until: date


def parsed(text: str) -> list[Advisory]:
    """The exceptions of the file. Raises ValueError for what is no exception."""
    try:
        listed = tomllib.loads(text).get("exception", [])
        return [Advisory(**one) for one in listed]
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise ValueError(f"requirements/exceptions.toml: {error}") from error


def faults(advisories: Iterable[Advisory], today: date) -> list[str]:
    """What is wrong with each: no reason, a day that is past or too far ahead."""
    found = []
    for one in advisories:
        if not one.because.strip():
            found.append(f"{one.id}: say why it does not concern us")
        if one.until < today:
            found.append(f"{one.id}: the exception ended on {one.until}: mend {one.package}, or look at it again")
        if one.until > today + LONGEST:
            found.append(f"{one.id}: an exception lasts {LONGEST.days} days at most")
    return found
