"""While nothing crashes the ledger is what the answers said, to the unit: received, accepted, rejected, duplicate."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from chassis.ids import uuid7
from tests.e2e.api import Json, Project, connected, sign_up
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(180)

_PRODUCERS = 6
_BATCHES = 40
#: How often a batch is sent: most once, some again at once, some many times side by side.
_TIMES = (1, 1, 1, 2, 3, 20)
_BAD: tuple[Json, ...] = (
    {"name": "books_sold_total", "value": -1, "labels": {"shop": "a"}},
    {"name": "books_sold_total", "value": "NaN", "labels": {"shop": "a"}},
    {"name": "books_sold_total", "value": 1},
    {"name": "books_sold_total", "value": 1, "labels": {"shop": "a", "city": "b"}},
    {"name": "books_lost_total", "value": 1},
)


class Bookkeeper:
    """Sends numbered batches, good and bad, and adds up what the answers say."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.counted: Counter[str] = Counter()
        self.by_code: Counter[str] = Counter()

    async def produce(self, chance: random.Random) -> None:
        producer = str(uuid7())
        for sequence in range(1, _BATCHES + 1):
            good = [
                {"name": "books_sold_total", "value": chance.randint(1, 9), "labels": {"shop": chance.choice("abc")}}
                for _ in range(chance.randint(1, 10))
            ]
            metrics = good + chance.choices(_BAD, k=chance.choice((0, 0, 1, 4)))
            chance.shuffle(metrics)
            batch = {"producer": producer, "sequence": sequence, "metrics": metrics}
            times = chance.choice(_TIMES)
            await asyncio.gather(*(self._send(json.dumps(batch).encode(), len(metrics)) for _ in range(times)))
            self.counted["committed"] += len(good)
            self.counted["duplicate"] += len(good) * (times - 1)

    async def _send(self, body: bytes, metrics: int) -> None:
        answer = await self._project.api.call(
            "POST", "/api/v1/metrics", data=body, credential=self._project.secret_key, timeout_seconds=60
        )
        assert answer.status == 202, answer.text
        self.counted["received"] += metrics
        self.counted["accepted"] += answer.json["accepted"]
        self.by_code.update(each["code"] for each in answer.json["rejected"])


async def _ledger(project: Project, usage_key: str) -> tuple[Counter[str], Counter[str]]:
    """The project's totals, and its rejections by code."""
    body = await project.api.expect(200, "GET", f"/api/v1/projects/{project.id}/ledger", credential=usage_key)
    totals: Counter[str] = Counter()
    by_code: Counter[str] = Counter()
    for line in body["items"]:
        totals.update({name: line[name] for name in ("received", "accepted", "committed", "duplicate")})
        by_code.update(line["rejected"])
    return totals, by_code


@pytest.fixture
async def project(suite: Suite) -> AsyncIterator[Project]:
    suite.wait_ready()
    async with connected(suite.base_url) as api:
        yield await sign_up(api)


async def test_the_ledger_is_what_every_answer_said(project: Project) -> None:
    await project.define("books_sold_total", labels=[{"name": "shop", "required": True}])
    usage_key = (await project.create_key("secret", scopes=["usage:read"]))["key"]
    keeper = Bookkeeper(project)
    await asyncio.gather(*(keeper.produce(random.Random(seed)) for seed in range(_PRODUCERS)))
    assert keeper.counted["accepted"] == keeper.counted["committed"] + keeper.counted["duplicate"]
    assert keeper.counted["received"] == keeper.counted["accepted"] + keeper.by_code.total()
    assert len(keeper.by_code) >= 4, "refused for different reasons"

    async def says() -> str:
        totals, by_code = await _ledger(project, usage_key)
        return "" if (totals, by_code) == (keeper.counted, keeper.by_code) else f"{totals}, {by_code}"

    async def agrees() -> bool:
        return not await says()

    try:
        await eventually(agrees, within_seconds=60)
    except AssertionError:
        pytest.fail(f"the ledger says {await says()}; the answers said {keeper.counted}, {keeper.by_code}")
