"""A canary at a gateway that answers 202 to everything, whatever becomes of it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import REGISTRY

from chassis.tasks import ended, in_background
from services.canary.clients import Gateway
from services.canary.domain import Book, Verdict
from services.canary.operations import Canary
from services.canary.storage import BookFile
from tests.moved_clock import MovedClock

#: A bucket's bound too.
_PATIENCE_SECONDS = 60.0


class _SharedClock(MovedClock):
    """Moves on once the sender and the comparer both sleep."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers = asyncio.Barrier(2)

    async def sleep(self, seconds: float) -> None:
        if await self._sleepers.wait() == 0:
            await super().sleep(seconds)


class _Doors:
    """Counts each batch once, or as often as told of the first one with a sequence, and shows it after a while; nothing
    new while delivery is out."""

    def __init__(
        self,
        clock: MovedClock,
        late_seconds: float,
        times: dict[int, int],
        outage: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self._clock = clock
        self._late_seconds = late_seconds
        self._times = times
        self._out_since, self._out_until = outage
        self._counted: list[tuple[float, str, int]] = []
        self._known: set[tuple[str, int]] = set()

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/api/v1/metrics", self._take)
        application.router.add_get("/prometheus/api/v1/query", self._answer)
        return application

    async def _take(self, request: web.Request) -> web.Response:
        batch = await request.json()
        [metric] = batch["metrics"]
        key = batch["producer"], batch["sequence"]
        if is_new := key not in self._known:
            self._known.add(key)
            units = metric["value"] * self._times.pop(batch["sequence"], 1)
            self._counted.append((self._clock.seconds, metric["labels"]["run"], units))
        # Each fourth is counted before somebody hears of it.
        return web.Response(status=503 if is_new and batch["sequence"] % 4 == 0 else 202)

    async def _answer(self, request: web.Request) -> web.Response:
        totals: dict[str, int] = defaultdict(int)
        now = self._clock.seconds
        delivered = (self._out_since if self._out_since <= now < self._out_until else now) - self._late_seconds
        for at, run, units in self._counted:
            if at <= delivered and run in request.query["query"]:
                totals[run] += units
        result = [{"metric": {"run": run}, "value": [0, str(units)]} for run, units in totals.items()]
        return web.json_response({"data": {"result": result}})


@asynccontextmanager
async def _flying(doors: _Doors, clock: MovedClock, folder: Path) -> AsyncIterator[Canary]:
    async with TestServer(doors.application()) as server, aiohttp.ClientSession() as session:
        gateway = Gateway(session, str(server.make_url("")), lambda: "key")
        file = BookFile(folder / "canary.json")
        canary = Canary(gateway, file, clock, interval_seconds=1.0, patience_seconds=_PATIENCE_SECONDS)
        async with in_background(canary.send_for_ever(), canary.compare_for_ever()):
            yield canary


async def _verdicts(doors: _Doors, clock: MovedClock, folder: Path, patiences: float) -> list[Verdict]:
    """Each verdict of a canary that flies for so long, one a second."""
    found: list[Verdict] = []
    until = clock.seconds + patiences * _PATIENCE_SECONDS
    async with _flying(doors, clock, folder) as canary:
        while clock.seconds < until:
            await asyncio.sleep(0)
            if canary.verdict is not None and (not found or canary.verdict is not found[-1]):
                found.append(canary.verdict)
    return found


@pytest.mark.parametrize(("times", "expected"), [(0, (5, 0)), (2, (0, 5))], ids=["lost", "double"])
async def test_one_batch_is_told_to_the_unit_for_ever_while_others_go_on_behind_a_late_sink(
    tmp_path: Path, times: int, expected: tuple[int, int]
) -> None:
    clock = _SharedClock()
    doors = _Doors(clock, late_seconds=15.0, times={5: times})
    told = [(each.lost, each.double) for each in await _verdicts(doors, clock, tmp_path, 5)]
    assert expected in told
    assert set(told[: told.index(expected)]) == {(0, 0)}
    assert set(told[told.index(expected) :]) == {expected}
    again = await _verdicts(doors, clock, tmp_path, 3)
    assert {(each.lost, each.double) for each in again} == {expected}


async def test_nothing_is_wrong_where_each_batch_counts_once(tmp_path: Path) -> None:
    clock = _SharedClock()
    found = await _verdicts(_Doors(clock, late_seconds=15.0, times={}), clock, tmp_path, 5)
    assert {(each.lost, each.double) for each in found} == {(0, 0)}
    assert sum(each.rested is not None for each in found) > 2


def _took_longer_than_the_patience() -> float:
    name = "pulsegate_canary_visibility_seconds"
    within = REGISTRY.get_sample_value(f"{name}_bucket", {"le": str(_PATIENCE_SECONDS)})
    return (REGISTRY.get_sample_value(f"{name}_count") or 0.0) - (within or 0.0)


@pytest.mark.parametrize("patiences", [1.5, 2.0, 3.5])
async def test_nothing_is_wrong_soon_after_an_outage_that_was_longer_than_the_patience(
    tmp_path: Path, patiences: float
) -> None:
    clock, slow = _SharedClock(), _took_longer_than_the_patience()
    begins, ends = _PATIENCE_SECONDS, (1 + patiences) * _PATIENCE_SECONDS
    doors = _Doors(clock, late_seconds=3.0, times={}, outage=(clock.seconds + begins, clock.seconds + ends))
    told = [(each.lost, each.double) for each in await _verdicts(doors, clock, tmp_path, 4 + patiences)]
    assert max(told[: int(ends)]) > (0, 0)
    assert set(told[int(ends) + 10 :]) == {(0, 0)}
    assert _took_longer_than_the_patience() > slow


class _SlowFile(BookFile):
    """Writes once it may."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.writes, self.may_write = Event(), Event()

    def write(self, book: Book) -> None:
        self.writes.set()
        self.may_write.wait()
        super().write(book)


async def test_a_canary_that_is_stopped_leaves_no_write_behind(tmp_path: Path) -> None:
    file, clock = _SlowFile(tmp_path / "canary.json"), MovedClock()
    async with aiohttp.ClientSession() as session:
        gateway = Gateway(session, "http://localhost", lambda: "key")
        canary = Canary(gateway, file, clock, interval_seconds=1.0, patience_seconds=_PATIENCE_SECONDS)
        sending = asyncio.create_task(canary.send_for_ever())
        await asyncio.to_thread(file.writes.wait)
        asyncio.get_running_loop().call_later(0.1, file.may_write.set)
        await ended([sending])
    assert file.read().flying.pending == 1
