"""The demo's numbers: what was sent beside what a Prometheus answers."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deploy.local.demo import totals
from deploy.local.demo.api import Api
from deploy.local.demo.ledger import Ledger
from deploy.local.demo.totals import Sample, agree, compare, table, totals_after

ORDERS = Sample(name="demo_orders_total", labels={"plan": "pro", "source": "server"}, value=1_000_000)
SELECTOR = 'demo_orders_total{plan="pro",source="server"}'


@pytest.fixture
async def stored() -> AsyncIterator[tuple[Api, dict[str, float]]]:
    """A query API, and the values that it answers by selector."""
    values: dict[str, float] = {}

    async def query(request: web.Request) -> web.Response:
        value = values.get(request.query["query"])
        result = [] if value is None else [{"metric": {}, "value": [0, str(value)]}]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    app = web.Application()
    app.router.add_get("/prometheus/api/v1/query", query)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        yield Api(session, str(server.make_url("")).rstrip("/")), values


async def test_what_was_lost_between_two_runs_differs(
    stored: tuple[Api, dict[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "_PATIENCE_SECONDS", 0.0)
    program, values = stored
    ledger = Ledger(tmp_path / "sent.json")
    ledger.close(totals_after(ledger.open() or {}, [ORDERS]))
    values[SELECTOR] = 999_999
    sent = totals_after(ledger.open() or {}, [ORDERS])
    assert sent == {SELECTOR: 2_000_000}
    values[SELECTOR] = 1_999_999
    lines = await compare(program, sent)
    assert not agree(lines)
    assert table(lines).splitlines()[1].split() == [SELECTOR, "2000000", "1999999", "differs"]
    values[SELECTOR] = 2_000_000
    assert agree(await compare(program, sent))


def test_a_run_that_was_interrupted_leaves_no_totals(tmp_path: Path) -> None:
    Ledger(tmp_path / "sent.json").close({SELECTOR: 1.5})
    assert Ledger(tmp_path / "sent.json").open() == {SELECTOR: 1.5}
    assert Ledger(tmp_path / "sent.json").open() is None


def test_a_level_is_what_was_set_last() -> None:
    carts = Sample(name="demo_open_carts", labels={}, value=3)
    assert totals_after({"demo_open_carts{}": 8}, [carts]) == {"demo_open_carts{}": 3}
