"""The generated browser client in Chromium, on pages of another origin: totals in Prometheus are exact to the unit."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager

import pytest
from playwright.async_api import Page

from tests.e2e.api import Answer, Api, Project, sign_up
from tests.e2e.pages import Site, Visitor, close_tab, kill_tab, leave, serving_site, visiting
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)

Leave = Callable[[Page], Awaitable[None]]

#: Does not wait long for a gateway that comes back.
_PATIENCE = {"retryDelayMs": 50, "maxRetryDelayMs": 500}
#: Each record is a batch, sealed and stored at once; some twenty of them fill the queue.
_SMALL_QUEUE = {**_PATIENCE, "maxBatchMetrics": 1, "maxQueueBytes": 4000}


@pytest.fixture
async def site(suite: Suite) -> AsyncIterator[Site]:
    async with serving_site(suite.base_url) as site:
        yield site


@pytest.fixture
async def project(api: Api, site: Site) -> Project:
    """Its publishable key is bound to the site; the site has the project's clients."""
    project = await sign_up(api, origins=[site.origin])
    await project.define("orders_total", labels=[{"name": "plan", "required": True, "values": ["free", "pro"]}])
    await project.define("open_carts", "gauge", labels=[{"name": "region"}])
    await project.define("checkout_seconds", "histogram", unit="seconds", buckets=[0.5, 1.0])
    await project.define("settled_total")
    script = await _script(project)
    integrity = script.headers["X-Content-Integrity"]
    site.script = f'src="{_address(project)}" integrity="{integrity}" crossorigin="anonymous"'
    module = await project.api.call(
        "GET",
        f"/api/v1/projects/{project.id}/client",
        credential=project.token,
        params={"language": "javascript", "keyId": project.publishable_key_id},
    )
    assert module.status == 200, module.text
    site.module = module.text
    return project


@pytest.fixture
async def visitor() -> AsyncIterator[Visitor]:
    async with visiting() as visitor:
        yield visitor
        assert visitor.errors == [], "the client disturbed the page"


def _address(project: Project) -> str:
    return f"{project.api.base_url}/sdk/v1/{project.publishable_key}.js"


async def _script(project: Project, path: str = "", **headers: str) -> Answer:
    return await project.api.call("GET", path or f"/sdk/v1/{project.publishable_key}.js", headers=headers)


async def _settle(*pages: Page) -> None:
    """Returns when what the pages recorded is accepted, rejected or counted as dropped."""
    for page in pages:
        assert await page.evaluate("shop.flush(30_000)"), await page.evaluate("shop.stats")


async def _stored(visitor: Visitor, site: Site, *, recorded: int) -> None:
    """Waits until one tab sees what another one has stored: tabs are processes, which tell each other in their time."""
    await eventually(lambda: _counts(visitor, site, recorded), what=f"{recorded} records are stored")


async def _counts(visitor: Visitor, site: Site, recorded: int) -> bool:
    return await visitor.counted("recorded", site) == recorded


async def _adds_up(project: Project, site: Site, visitor: Visitor, *, recorded: int, dropped: int = 0) -> None:
    """Waits until the total is what was recorded but not dropped; and it stays that."""
    await _stored(visitor, site, recorded=recorded)
    assert await visitor.counted("dropped", site) == dropped
    await project.shows("sum(orders_total)", recorded - dropped or None)
    # Whatever arrived before this is visible when this is.
    assert (await project.send({"name": "settled_total", "value": 1})).status == 202
    await project.shows("settled_total", 1)
    assert (await project.value("sum(orders_total)") or 0) == recorded - dropped


_TRAFFIC = """() => {
  order(200, "pro");
  order(50, "free");
  const { ordersTotal } = globalThis.pulsegate ?? { ordersTotal: shop.ordersTotal.bind(shop) };
  ordersTotal({ plan: "free" }, 7);
  for (const level of [3, 12]) shop.openCarts({ region: "eu" }, level);
  shop.openCarts(4);
  for (let i = 0; i < 100; i++) shop.checkoutSeconds([0.2, 3.0]);
  shop.checkoutSeconds(0.75);
}"""

#: What a page that is plain JavaScript may call; each is to be ignored, and counted.
_WRONG_USE = """() => {
  const circular = {};
  const revoked = Proxy.revocable({}, {});
  revoked.revoke();
  circular.plan = circular;
  const hostile = { get plan() { throw new Error("a getter of the page"); } };
  const calls = [
    () => shop.ordersTotal({ plan: "pro" }, -1),
    () => shop.ordersTotal({ plan: "pro" }, NaN),
    () => shop.ordersTotal({ plan: "pro" }, "many"),
    () => shop.ordersTotal({ plan: "pro" }, [1, 2]),
    () => shop.ordersTotal({ plan: "pro" }, null),
    () => shop.ordersTotal({ plan: Symbol("pro") }),
    () => shop.ordersTotal({ plan: "Hello \\u{1f600}".slice(0, 7) }),
    () => shop.ordersTotal(revoked.proxy),
    () => shop.ordersTotal({ plan: Object.create(null) }),
    () => shop.ordersTotal(hostile),
    () => shop.ordersTotal("pro"),
    () => shop.openCarts(),
    () => shop.openCarts(Infinity),
    () => shop.openCarts(1, "yesterday"),
    () => shop.openCarts(10n),
    () => shop.checkoutSeconds([]),
    () => shop.checkoutSeconds([0.1, undefined]),
    () => shop.record(),
    () => shop.record({}, 1),
  ];
  for (const call of calls) call();
  return calls.length;
}"""

#: What only the gateway can refuse: a value, a label and a metric that are not defined, a label that lacks.
_REFUSED_USE = """() => {
  shop.ordersTotal({ plan: "gold" });
  shop.ordersTotal({ plan: "pro", country: "de" });
  shop.ordersTotal();
  shop.record("unheard_of_total", 1);
  return 4;
}"""


@pytest.mark.parametrize("build", ["script tag", "module"])
async def test_traffic_of_a_page_on_another_origin_is_exact_and_wrong_use_does_not_disturb_it(
    project: Project, site: Site, visitor: Visitor, build: str
) -> None:
    page = await visitor.visit(site.script_page if build == "script tag" else site.module_page())
    wrong = await page.evaluate(_WRONG_USE)
    await page.evaluate(_TRAFFIC)
    refused = await page.evaluate(_REFUSED_USE)
    await _settle(page)

    await project.shows('orders_total{plan="pro"}', 200)
    await project.shows('orders_total{plan="free"}', 57)
    await project.shows("sum(orders_total)", 257)
    await project.shows('open_carts{region="eu"}', 12)
    await project.shows('open_carts{region=""}', 4)
    await project.shows('checkout_seconds_bucket{le="0.5"}', 100)
    await project.shows('checkout_seconds_bucket{le="1.0"}', 101)
    await project.shows('checkout_seconds_bucket{le="+Inf"}', 201)
    await project.shows("checkout_seconds_count", 201)
    assert await project.value("checkout_seconds_sum") == pytest.approx(100 * 3.2 + 0.75)

    stats = await page.evaluate("shop.stats")
    assert (stats["dropped"], stats["rejected"]) == ({"invalid": wrong}, refused)
    assert stats["recorded"] == stats["accepted"] + refused + wrong
    assert all(warning.startswith("pulsegate: ") for warning in visitor.warnings), visitor.warnings
    # Once a page, however often.
    assert len(visitor.warnings) == len(set(visitor.warnings)) == 4, visitor.warnings


@pytest.mark.parametrize("other", ["another port", "another name"])
async def test_a_page_of_an_origin_that_the_key_does_not_name_is_refused_and_not_disturbed(
    project: Project, site: Site, visitor: Visitor, other: str
) -> None:
    async with serving_site(site.gateway) as thief:
        thief.script = site.script
        address = thief.script_page if other == "another port" else site.script_page.replace("127.0.0.1", "localhost")
        page = await visitor.visit(address)
        async with page.expect_response(re.compile("/api/v1/metrics")) as refusal:
            await page.evaluate("order(5)")
        response = await refusal.value
        assert (response.status, (await response.json())["error"]["code"]) == (403, "ORIGIN_NOT_ALLOWED")
        assert await page.evaluate("shop.flush(100)") is False
        await eventually(lambda: _is_warned(visitor), what="the page's developer is warned")
        await page.evaluate("order(5)")
        assert len(visitor.warnings) == 1
        assert "ORIGIN_NOT_ALLOWED" in visitor.warnings[0]
    await project.send({"name": "settled_total", "value": 1})
    await project.shows("settled_total", 1)
    assert await project.query("orders_total") == []


async def _is_warned(visitor: Visitor) -> bool:
    return bool(visitor.warnings)


async def test_a_full_queue_survives_a_reload_and_what_it_dropped_is_counted(
    suite: Suite, project: Project, site: Site, visitor: Visitor
) -> None:
    page = await visitor.visit(site.module_page(**_SMALL_QUEUE))
    await page.evaluate("order(10)")
    await _settle(page)
    with suite.gone("gateway"):
        await page.evaluate("order(100)")
        await _stored(visitor, site, recorded=110)
        full = await visitor.waiting(site)
        await page.reload()
        await eventually(lambda: page.evaluate("shop.stats.adopted > 0"), what="the queue of before is taken over")
        assert await visitor.waiting(site) == full
        await page.evaluate("order(10)")
        await _stored(visitor, site, recorded=120)
        waiting = await visitor.waiting(site)
        await page.reload()
    await _settle(page)
    await _stored(visitor, site, recorded=120)
    dropped = await visitor.counted("dropped", site)
    assert 10 < waiting < 40
    assert dropped == 110 - waiting
    await _adds_up(project, site, visitor, recorded=120, dropped=dropped)


async def _reload_while_away(away: AbstractContextManager[None], page: Page) -> None:
    """Three page loads record 100 each, the last two without a gateway."""
    await page.evaluate("order(100)")
    with away:
        for _ in range(2):
            # The script comes from the browser's cache.
            await page.reload()
            await page.evaluate("order(100)")
            await page.evaluate("void shop.flush(1)")
        await page.reload()


@pytest.mark.parametrize("build", ["script tag", "module"])
@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_nothing_is_lost_or_counted_twice_when_a_page_reloads_while_the_gateway_is_away(
    suite: Suite, project: Project, site: Site, visitor: Visitor, build: str, how: str
) -> None:
    page = await visitor.visit(site.script_page if build == "script tag" else site.module_page(**_PATIENCE))
    await _reload_while_away(suite.gone("gateway") if how == "killed" else suite.paused("gateway"), page)
    await _settle(page)
    await _adds_up(project, site, visitor, recorded=300)


@pytest.mark.parametrize("go", [close_tab, leave], ids=["close", "navigate"])
async def test_what_a_page_recorded_right_before_it_goes_arrives_without_another_visit(
    project: Project, site: Site, visitor: Visitor, go: Leave
) -> None:
    page = await visitor.visit(site.script_page)
    await page.evaluate("order(42)")
    await go(page)
    await _adds_up(project, site, visitor, recorded=42)
    # The page has not seen the answer: the next one sends the batch again.
    later = await visitor.visit(site.script_page)
    await later.evaluate("order(1)")
    await eventually(lambda: _is_delivered(visitor, site), what="the queue is empty")
    await _settle(later)
    await _adds_up(project, site, visitor, recorded=43)


@pytest.mark.parametrize("go", [close_tab, leave, kill_tab], ids=["close", "navigate", "kill"])
@pytest.mark.parametrize("gateway", ["there", "away"])
async def test_the_next_visit_delivers_what_a_page_that_is_gone_could_not(
    suite: Suite, project: Project, site: Site, visitor: Visitor, go: Leave, gateway: str
) -> None:
    address = site.module_page(**_PATIENCE, maxBatchMetrics=1)
    page = await visitor.visit(address)
    if gateway == "away":
        with suite.gone("gateway"):
            await page.evaluate("order(42)")
            await go(page)
    else:
        await page.evaluate("order(42)")
        await go(page)
    later = await visitor.visit(address)
    await later.evaluate("order(1)")
    await eventually(lambda: _is_delivered(visitor, site), what="the queue is empty")
    await _adds_up(project, site, visitor, recorded=43)


async def test_what_a_page_could_not_send_is_delivered_under_the_key_that_replaces_its_own(
    suite: Suite, project: Project, site: Site, visitor: Visitor
) -> None:
    page = await visitor.visit(site.script_page)
    with suite.gone("gateway"):
        await page.evaluate("order(10)")
        await _stored(visitor, site, recorded=10)
        await page.evaluate("void shop.flush(1)")
        await close_tab(page)
    path = f"/api/v1/projects/{project.id}/keys/{project.publishable_key_id}/rotate"
    new = await project.api.expect(201, "POST", path, {"graceSeconds": 0}, credential=project.token)
    site.script = f'src="{project.api.base_url}/sdk/v1/{new["key"]}.js"'
    later = await visitor.visit(site.script_page)
    await eventually(lambda: later.evaluate("shop.stats.adopted === 10"), what="the queue of before is taken over")
    await _settle(later)
    assert await _is_delivered(visitor, site)
    await _adds_up(project, site, visitor, recorded=10)


async def _is_delivered(visitor: Visitor, site: Site) -> bool:
    return await visitor.waiting(site) == 0


async def test_a_duplicated_tab_and_its_original_both_count(project: Project, site: Site, visitor: Visitor) -> None:
    page = await visitor.visit(site.script_page)
    await page.evaluate("sessionStorage.cart = '1'; order(5)")
    copy = await visitor.duplicate(page)
    assert await copy.evaluate("sessionStorage.cart") == "1"
    for _ in range(3):
        await asyncio.gather(page.evaluate("order(10)"), copy.evaluate("order(10)"))
        await _settle(page, copy)
    await _adds_up(project, site, visitor, recorded=65)
    producers = {batch["producer"] for batch in map(json.loads, visitor.sent) if "producer" in batch}
    assert len(producers) == 2


#: Until the page goes away: what a page does after that may be cut off in the middle.
_STEADY_TRAFFIC = """() => {
  globalThis.traffic = setInterval(() => order(2), 10);
  addEventListener("pagehide", () => clearInterval(traffic));
}"""


async def test_totals_are_exact_when_the_receiver_and_the_gateway_are_killed_while_tabs_send(
    suite: Suite, project: Project, site: Site, visitor: Visitor
) -> None:
    pages = [await visitor.visit(site.module_page(**_PATIENCE, flushIntervalMs=50)) for _ in range(3)]
    for page in pages:
        await page.evaluate(_STEADY_TRAFFIC)
    for name in ("receiver", "gateway"):
        pid = suite.kill(name)
        await asyncio.to_thread(suite.wait_restarted, name, pid)
    await close_tab(pages.pop())
    for page in pages:
        await page.evaluate("clearInterval(traffic)")
    later = await visitor.visit(site.module_page(**_PATIENCE))
    await _settle(*pages, later)
    await eventually(lambda: _is_delivered(visitor, site), what="the queue is empty")
    recorded = await visitor.counted("recorded", site)
    assert recorded > 500
    assert sum([await page.evaluate("shop.stats.retries") for page in pages]) > 0
    await _adds_up(project, site, visitor, recorded=recorded)


async def test_the_script_is_cached_and_may_be_pinned(project: Project, site: Site, visitor: Visitor) -> None:
    script = await _script(project)
    assert script.status == 200
    assert script.headers["Cache-Control"] == "public, max-age=300, stale-while-revalidate=86400, stale-if-error=604800"
    assert script.headers["Content-Type"].startswith("text/javascript")
    digest = hashlib.sha384(script.text.encode()).digest()
    assert script.headers["X-Content-Integrity"] == f"sha384-{base64.b64encode(digest).decode()}"
    same = await _script(project, **{"If-None-Match": script.headers["ETag"]})
    assert (same.status, same.text, same.headers["ETag"]) == (304, "", script.headers["ETag"])
    canonical = re.fullmatch('<(.+)>; rel="canonical"', script.headers["Link"])
    assert canonical

    await project.define("added_total")
    assert (await _script(project, **{"If-None-Match": script.headers["ETag"]})).status == 200
    pinned = await _script(project, canonical[1])
    assert (pinned.status, pinned.text) == (200, script.text)
    assert "immutable" in pinned.headers["Cache-Control"]
    assert pinned.headers["X-Content-Integrity"] == script.headers["X-Content-Integrity"]

    site.script = site.script.replace(_address(project), project.api.base_url + canonical[1])
    page = await visitor.visit(site.script_page)
    await page.evaluate("order(3)")
    await _settle(page)
    await _adds_up(project, site, visitor, recorded=3)


async def test_a_browser_runs_no_other_bytes_than_the_pages_integrity_names(
    project: Project, site: Site, visitor: Visitor
) -> None:
    await project.define("added_total")
    page = await visitor.visit(site.script_page)
    assert await page.evaluate("typeof pulsegate") == "undefined"
    [refusal] = visitor.errors
    assert "integrity" in refusal
    visitor.errors.clear()
