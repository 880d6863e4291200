"""What was sent beside what Prometheus answers."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.local.demo.api import Api

_PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.5
#: Two readings so far apart that agree mean that nothing from before is still on its way.
_SETTLING_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One series of the demo and a value of it."""

    name: str
    labels: Mapping[str, str]
    value: float

    @property
    def selector(self) -> str:
        matchers = ",".join(f'{name}="{value}"' for name, value in sorted(self.labels.items()))
        return f"{self.name}{{{matchers}}}"

    @property
    def is_level(self) -> bool:
        """Whether it is set rather than added to."""
        return self.name == "demo_open_carts"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One line of the result."""

    selector: str
    sent: float
    #: None where there is no such series
    stored: float | None


async def totals_before(program: Api, samples: Sequence[Sample]) -> dict[str, float]:
    """What the series had reached when they were last seen, which may be on an earlier day.

    For a run that knows of nothing that was sent before, so cannot say whether any of that is missing.
    """
    before = await _last_values(program, samples)
    while any(before.values()):
        await asyncio.sleep(_SETTLING_SECONDS)
        again = await _last_values(program, samples)
        if again == before:
            break
        before = again
    return before


def totals_after(before: Mapping[str, float], sent: Sequence[Sample]) -> dict[str, float]:
    """What every series must have reached, by selector."""
    values = {
        sample.selector: sample.value if sample.is_level else before.get(sample.selector, 0.0) + sample.value
        for sample in sent
    }
    return {**before, **values}


async def compare(program: Api, totals: Mapping[str, float]) -> list[Comparison]:
    """Asks until everything agrees, for half a minute at most."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        lines = [
            Comparison(selector=selector, sent=total, stored=await _value(program, selector))
            for selector, total in totals.items()
        ]
        if agree(lines) or time.monotonic() > deadline:
            return lines
        await asyncio.sleep(_PAUSE_SECONDS)


def agree(lines: Sequence[Comparison]) -> bool:
    """Whether each line has arrived, to the unit."""
    return all(line.sent == line.stored for line in lines)


def table(lines: Sequence[Comparison]) -> str:
    """For the terminal."""
    width = max(len(line.selector) for line in lines)
    rows = [f"{'':{width}}  {'sent':>12}  {'Prometheus':>12}"]
    for line in lines:
        stored = "absent" if line.stored is None else _written(line.stored)
        mark = "" if line.stored == line.sent else "  differs"
        rows.append(f"{line.selector:{width}}  {_written(line.sent):>12}  {stored:>12}{mark}")
    return "\n".join(rows)


def _written(number: float) -> str:
    """To the unit, also of a large total."""
    return f"{number:.15g}"


async def _last_values(program: Api, samples: Sequence[Sample]) -> dict[str, float]:
    return {
        sample.selector: await _value(program, f"last_over_time({sample.selector}[8d])") or 0.0 for sample in samples
    }


async def _value(program: Api, query: str) -> float | None:
    answer = await program.get("/prometheus/api/v1/query", query=query)
    result = answer["data"]["result"]
    return float(result[0]["value"][1]) if result else None
