"""A shop's web pages on an origin of their own, and a visitor who looks at them in headless Chromium.

A page has `shop`, its generated client, and `order(times, plan)`, which records `orders_total` and counts in the
page's own storage what it recorded and what the client dropped: known also when the page is gone.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aiohttp import web
from playwright.async_api import BrowserContext, ConsoleMessage, Error, Page, WebError, async_playwright

from tests.chromium import launch_options

_PAGE_SCRIPT = """
const load = crypto.randomUUID();
const counts = {};
// Each page load counts in items of its own: tabs that share one could overwrite each other's.
function count(what, records) {
  counts[what] = (counts[what] ?? 0) + records;
  localStorage[`${what} ${load}`] = counts[what];
}
globalThis.order = (times, plan = "pro") => {
  for (let i = 0; i < times; i++) {
    shop.ordersTotal({ plan });
    count("recorded", 1);
  }
};
globalThis.options = {
  ...JSON.parse(new URLSearchParams(location.search).get("options")),
  onDrop: (_reason, records) => count("dropped", records),
};
"""
#: The script tag's own client, which knows no options.
_SCRIPT_SHOP = "globalThis.shop = globalThis.pulsegate;"
_MODULE_SHOP = 'import { Metrics } from "/pulsegate-metrics.mjs"; globalThis.shop = new Metrics(options);'

#: Chromium's own words about a request that failed. All else in the console's errors would be the client's fault.
_NETWORK_ERROR = "Failed to load resource: "


@dataclass
class Site:
    """A web server whose pages load only what their policy (CSP) names: this site, and the gateway."""

    origin: str
    gateway: str
    #: the generated ES module, which the site serves itself
    module: str = ""
    #: the attributes of the script tag
    script: str = ""

    @property
    def script_page(self) -> str:
        """The page with the script tag."""
        return f"{self.origin}/script"

    def module_page(self, **options: Any) -> str:
        """The page that imports the ES module and gives the client these options."""
        return f"{self.origin}/module?options={quote(json.dumps(options))}"

    @property
    def empty_page(self) -> str:
        """Shares the other pages' storage, and records nothing."""
        return f"{self.origin}/empty"

    async def answer(self, request: web.Request) -> web.Response:
        texts = {
            "/page.js": _PAGE_SCRIPT,
            "/script-shop.js": _SCRIPT_SHOP,
            "/module-shop.js": _MODULE_SHOP,
            "/pulsegate-metrics.mjs": self.module,
        }
        if request.path in texts:
            return web.Response(text=texts[request.path], content_type="text/javascript")
        bodies = {
            "/empty": "",
            "/script": f'<script {self.script}></script><script src="/page.js"></script>'
            '<script src="/script-shop.js"></script>',
            "/module": '<script src="/page.js"></script><script type="module" src="/module-shop.js"></script>',
        }
        html = f'<!doctype html><link rel="icon" href="data:,"><title>shop</title>{bodies[request.path]}'
        policy = f"default-src 'none'; img-src data:; script-src 'self' {self.gateway}; connect-src {self.gateway}"
        return web.Response(text=html, content_type="text/html", headers={"Content-Security-Policy": policy})


@asynccontextmanager
async def serving_site(gateway: str) -> AsyncIterator[Site]:
    """A site on a free port; `gateway` is the address that its pages may send to."""
    site = Site("", gateway)
    server = web.Application()
    server.router.add_get("/{path:.*}", site.answer)
    runner = web.AppRunner(server)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        site.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield site
    finally:
        await runner.cleanup()


class Visitor:
    """Tabs that share cookies, cache and storage."""

    def __init__(self, context: BrowserContext) -> None:
        self._context = context
        self._witness: Page | None = None
        #: what a page's developer would see in red, other than requests that failed
        self.errors: list[str] = []
        self.warnings: list[str] = []
        #: bodies of batches, of all tabs
        self.sent: list[str] = []
        context.on("console", self._note_console)
        context.on("weberror", self._note_error)
        context.on("request", lambda request: self.sent.append(request.post_data or "{}"))

    async def visit(self, address: str) -> Page:
        """A new tab, when its page has loaded."""
        page = await self._context.new_page()
        await page.goto(address)
        return page

    async def duplicate(self, page: Page) -> Page:
        """The same page in a second tab, which starts with a copy of the first one's sessionStorage."""
        async with self._context.expect_page() as opened:
            await page.evaluate("void window.open(location.href)")
        copy = await opened.value
        await copy.wait_for_load_state()
        return copy

    async def counted(self, what: str, site: Site) -> int:
        """What the site's pages `recorded` or had `dropped`, gone ones included."""
        items = await self._storage(site)
        return sum(int(value) for key, value in items.items() if key.startswith(f"{what} "))

    async def waiting(self, site: Site) -> int:
        """How many batches are stored, because they are not settled."""
        return sum(key.startswith("pulsegate/") for key in await self._storage(site))

    async def _storage(self, site: Site) -> dict[str, str]:
        self._witness = self._witness or await self.visit(site.empty_page)
        items: dict[str, str] = await self._witness.evaluate("({ ...localStorage })")
        return items

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type == "warning":
            self.warnings.append(message.text)
        elif message.type == "error" and not message.text.startswith(_NETWORK_ERROR):
            self.errors.append(message.text)

    def _note_error(self, error: WebError) -> None:
        self.errors.append(str(error.error))


@asynccontextmanager
async def visiting() -> AsyncIterator[Visitor]:
    """A visitor whom nobody knows yet, in a browser of their own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**launch_options())
        try:
            yield Visitor(await browser.new_context())
        finally:
            await browser.close()


async def close_tab(page: Page) -> None:
    """As its cross does: with the events that a page gets when it goes away, unlike a killed one."""
    async with page.expect_event("close"):
        await page.close(run_before_unload=True)


async def leave(page: Page) -> None:
    """To a page of nobody."""
    await page.goto("about:blank")


async def kill_tab(page: Page) -> None:
    """Its process crashes: the page gets no event, and none of its code runs any more."""
    async with page.expect_event("crash"):
        with suppress(Error):  # that the page crashed
            await page.goto("chrome://crash")
