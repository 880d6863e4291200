"""Metrics that are sent more label sets than they may have: which of them fold is up to kills and the moment at which
the limit is raised, what all of them add up to is not."""

import asyncio

import aiohttp

from tests.chaos.knowledge import RETRIED, TIMEOUT_SECONDS
from tests.chaos.series import GUESTS, VISITS
from tests.e2e.api import Json, Project

_LIMIT, _RAISED = 3, 7


class Limits:
    """How many visitors are told apart."""

    def __init__(self, project: Project) -> None:
        self._project = project
        #: Definitions whose limit is not raised yet.
        self._metrics: list[Json] = []

    async def define(self) -> None:
        labels = _labels(_LIMIT)
        self._metrics.append(await self._project.define(VISITS, labels=labels))
        self._metrics.append(await self._project.define(GUESTS, "gauge", gaugeMerge="sum", labels=labels))

    async def raise_once(self) -> None:
        """Until config has taken it. That it is there already says that an answer got lost."""
        while self._metrics:
            status = await self._raise(self._metrics[0])
            assert status in RETRIED | {200, 412}, f"a change of a definition was answered {status}"
            if status in (200, 412):
                del self._metrics[0]
            else:
                await asyncio.sleep(0.1)

    async def _raise(self, metric: Json) -> int:
        """The status; 0 without an answer."""
        project = self._project
        kept = {name: metric[name] for name in ("name", "type", "help", "gaugeMerge") if name in metric}
        try:
            answer = await project.api.call(
                "PUT",
                f"/api/v1/projects/{project.id}/metrics/{metric['id']}",
                kept | {"labels": _labels(_RAISED)},
                credential=project.token,
                headers={"If-Match": '"1"'},
                timeout_seconds=TIMEOUT_SECONDS,
            )
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0
        return answer.status


def _labels(limit: int) -> list[Json]:
    return [{"name": "visitor", "maxDistinct": limit}]
