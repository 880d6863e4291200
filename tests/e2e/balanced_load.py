"""A load through several gateways, as a load balancer spreads it."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from chassis.tasks import in_background
from tests.e2e.api import Answer, Api, Json
from tests.e2e.load import Load
from tests.waiting import eventually

_LOOK_EVERY_SECONDS = 0.1


@dataclass
class BalancedLoad(Load):
    """A load through several gateways, as a load balancer spreads it: over those that say that they are ready.

    A refused connection goes to another one. Nothing else is tried again: whatever else is not a 202 has failed.
    """

    gateways: list[Api] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    #: Batches that each gateway has acknowledged.
    taken: Counter[Api] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._ready = dict.fromkeys(self.gateways, True)
        self._turns = itertools.count()

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Looks after the gateways' readiness while open."""
        async with in_background(*(self._look(gateway) for gateway in self.gateways)):
            yield

    async def _look(self, gateway: Api) -> None:
        while True:
            try:
                answer = await gateway.call("GET", "/health/ready", timeout_seconds=2.0)
                self._ready[gateway] = answer.status == 200
            except (aiohttp.ClientError, TimeoutError, OSError):
                self._ready[gateway] = False
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _ask(self, batch: Json) -> Answer:
        candidates = [gateway for gateway in self.gateways if self._ready[gateway]]
        first = next(self._turns) % max(len(candidates), 1)
        for gateway in [*candidates[first:], *candidates[:first]]:
            try:
                answer = await gateway.call("POST", "/api/v1/metrics", batch, credential=self.project.secret_key)
            except aiohttp.ClientConnectorError:
                self._ready[gateway] = False
                continue
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.failed.append(f"{gateway.base_url}: {error!r}")
                raise
            if answer.status != 202:
                self.failed.append(f"{gateway.base_url}: {answer.status} {answer.text}")
            else:
                self.taken[gateway] += 1
            return answer
        self.failed.append("no gateway is ready")
        raise ConnectionError

    async def goes_on(self) -> None:
        """Returns when each gateway has acknowledged more, and so knows the key: without auth only known ones go on."""
        enough = {gateway: self.taken[gateway] + 10 for gateway in self.gateways}

        async def reached() -> bool:
            return all(self.taken[gateway] >= count for gateway, count in enough.items())

        await eventually(reached, within_seconds=60, what="each gateway acknowledges more batches")
