"""What a chaos run does, drawn from its seed.

    CHAOS_SEED=7 CHAOS_KILLS=100 CHAOS_SECONDS=1200 make chaos

The same seed repeats the disruptions: their order, whom they strike, the pauses between and in them; the times of each
life of a process at which each failpoint strikes, lives being counted from the start of the supervisor; and what each
client draws, one number after the other. It does not repeat the moments: how far processes and clients come in between
is up to the machine, and therefore how many batches and strikes there are.

A plan ends after its kills or its time, whichever is first. The defaults are those of the short run in `make test`.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from chassis.settings import integer, load, number, setting

#: Every process of run.json.
SERVERS = ("postgres", "valkey", "nats", "prometheus")
SERVICES = ("auth", "config", "codegen", "receiver", "aggregator", "gateway")
PROCESSES = (*SERVERS, *SERVICES)

#: Longer than a lane's lease, than a batch waits for the log, and than a client waits for an answer.
_LONGEST_PAUSE_SECONDS = 7.0

#: Those that a service reaches while others run; all of them together strike some ten times a minute.
FAILPOINTS = ",".join(
    [
        "frame-sent:crash@0.0005",
        "frame-sent:pause=0.5@0.001",
        "log-acknowledged:crash@0.0005",
        "log-acknowledged:error@0.002",
        "lane-taken:crash@0.05",
        "before-commit:crash@0.01",
        "in-commit:crash@0.01",
        "in-commit:error@0.01",
        "committed:crash@0.01",
        "committed:pause=2@0.01",
        "delivered:crash@0.01",
        "before-answer:crash@0.0005",
        "before-answer:error@0.002",
    ]
)


@dataclass(frozen=True, kw_only=True)
class ChaosSettings:
    """What the caller chooses."""

    seed: int = setting("CHAOS_SEED", parse=integer(0, 2**31), default=13)
    most_seconds: float = setting("CHAOS_SECONDS", parse=number(1, 86_400), default=45.0)
    most_kills: int = setting("CHAOS_KILLS", parse=integer(1, 100_000), default=14)
    #: How long Prometheus answers nothing useful.
    outage_seconds: float = setting("CHAOS_OUTAGE_SECONDS", parse=number(1, 7200), default=8.0)


def chosen() -> ChaosSettings:
    """From the environment."""
    return load(ChaosSettings, os.environ)


class Kind(StrEnum):
    """What is done to processes."""

    #: kill -9 of each, at the same moment.
    KILL = "kill"
    #: SIGTERM to one after the other, each when the one before is back.
    ROLL = "roll"
    #: SIGSTOP, and SIGCONT later.
    PAUSE = "pause"
    #: kill -9 of the supervisor, which takes everything with it.
    KILL_ALL = "kill all"


@dataclass(frozen=True)
class Disruption:
    """One step of a plan."""

    #: Since the one before.
    after_seconds: float
    kind: Kind
    targets: tuple[str, ...]
    pause_seconds: float = 0.0

    @property
    def kills(self) -> int:
        return len(self.targets) if self.kind in (Kind.KILL, Kind.KILL_ALL) else 0


def disruptions(seed: int) -> Iterator[Disruption]:
    """For ever: shuffled decks, each of which kills every process at least once."""
    chance = random.Random(seed)
    for round_number in range(1_000_000):
        deck = list(_deck(chance))
        chance.shuffle(deck)
        if round_number % 5 == 0:
            deck.insert(3, Disruption(1.0, Kind.KILL_ALL, ("supervisor",)))
        yield from deck


def _deck(chance: random.Random) -> Iterator[Disruption]:
    for name in PROCESSES:
        yield Disruption(_gap(chance), Kind.KILL, (name,))
    yield Disruption(_gap(chance), Kind.KILL, tuple(chance.sample(PROCESSES, 2)))
    yield Disruption(_gap(chance), Kind.KILL, ("receiver", "aggregator"))
    yield Disruption(_gap(chance), Kind.ROLL, tuple(chance.sample(SERVICES, 3)))
    for name in ("aggregator", *chance.sample(PROCESSES, 2)):
        yield Disruption(_gap(chance), Kind.PAUSE, (name,), round(chance.uniform(0.5, _LONGEST_PAUSE_SECONDS), 1))


def _gap(chance: random.Random) -> float:
    return round(chance.uniform(0.1, 1.2), 2)
