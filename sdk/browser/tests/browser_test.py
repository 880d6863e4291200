"""The runtime in headless Chromium: a page on one origin, an ingestion server that counts each batch once on another.

What Node cannot show: reloads, closing and crashing tabs, tabs side by side, the back/forward cache, real storage.
"""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Frame, Page, sync_playwright
from tests.chromium import launch_options

pytestmark = pytest.mark.timeout(60)

TESTS = Path(__file__).parent
SERIES = 'checkout_completed_total{"plan":"pro"}'

#: A page's script: counts in its own storage what it records, so that a test knows also after the page is gone.
PAGE_SCRIPT = """
const metrics = new Pulsegate.Metrics({ endpoint, key: "pk_test", flushIntervalMs: 50, retryDelayMs: 50, ...options });
function count(name) {
  try { localStorage[name] = Number(localStorage[name] ?? 0) + 1; } catch { /* Nowhere to count. */ }
}
function record(times, plan = "pro") {
  for (let i = 0; i < times; i++) {
    count("begun");
    metrics.checkoutCompletedTotal({ plan });
    count("recorded");
  }
}
"""


def eventually(condition: Callable[[], Any], what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Ingestion:
    """tests/ingestion_server.mjs in its own process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        self.url: str = started["url"]
        self._control = f"http://127.0.0.1:{started['control']}"

    def tell(self, **command: Any) -> dict[str, Any]:
        """Change what the server does (`up`, `down`, `script`, `rules`), and read its state."""
        with urlopen(self._control, json.dumps(command).encode(), timeout=10) as response:  # noqa: S310
            state: dict[str, Any] = json.load(response)
        return state

    @property
    def requests(self) -> list[dict[str, Any]]:
        return list(self.tell()["requests"])

    @property
    def batches(self) -> list[dict[str, Any]]:
        return [json.loads(request["body"]) for request in self.requests]

    @property
    def total(self) -> int:
        return int(self.tell()["totals"].get(SERIES, 0))


@pytest.fixture
def ingestion() -> Iterator[Ingestion]:
    node = shutil.which("node", path=f"{Path('.venv/bin').absolute()}{os.pathsep}{os.environ['PATH']}")
    assert node, "the runtime's tests need Node, on PATH or in .venv/bin"
    command = [node, str(TESTS / "ingestion_server.mjs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        server = Ingestion(process)
        yield server
        violations = server.tell()["violations"]
        process.kill()
    assert violations == []


@pytest.fixture
def site(ingestion: Ingestion) -> Iterator[str]:
    """The address of a page on an origin of its own; what may follow its `?` is at page_html()."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page_html(ingestion.url, self.path).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, *_: Any) -> None:
            """Not among the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def page_html(endpoint: str, path: str) -> str:
    """What the path may have: `readable`, the runtime is not the minified one; `tiny`, each record is a batch, in a
    queue of 5000 characters; `slow`, no batch is sealed by time.
    """
    build = "runtime.js" if "readable" in path else "runtime.min.js"
    runtime = (TESTS.parent / "dist" / build).read_text(encoding="ascii")
    variants = {"tiny": {"maxQueueBytes": 5000, "maxBatchMetrics": 1}, "slow": {"flushIntervalMs": 3_600_000}}
    options = json.dumps(next((variants[name] for name in variants if name in path), {}))
    generated = """class Metrics extends Pulsegate.Client {
      checkoutCompletedTotal(labels, value = 1) {
        this.record("checkout_completed_total", value, labels, undefined, "counter");
      }
    }
    Pulsegate.Metrics = Metrics;"""
    script = f"{runtime};globalThis.Pulsegate = {{ ...PulsegateRuntime }};{generated}"
    settings = f"const endpoint = {json.dumps(endpoint)}, options = {options};"
    return f"<!doctype html><title>shop</title><script>{script}{settings}{PAGE_SCRIPT}</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**launch_options())
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor: tabs that share storage, which lasts as long as the test."""
    context = browser.new_context()
    yield context
    context.close()


def visit(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    return page


def close_tab(page: Page) -> None:
    """As its cross does: with pagehide, unlike a killed one."""
    with page.expect_event("close"):
        page.close(run_before_unload=True)


def stats(page: Page | Frame) -> dict[str, Any]:
    result: dict[str, Any] = page.evaluate("metrics.stats")
    assert result["faults"] == 0
    return result


def stored(page: Page) -> int:
    keys: list[str] = page.evaluate("Object.keys(localStorage)")
    return sum(key.startswith("pulsegate/") for key in keys)


def is_all_recorded(page: Page, total: int) -> bool:
    """Whether the total is what the site's pages recorded; the call in which one of them ended may count or not."""
    recorded, begun = page.evaluate("[localStorage.recorded, localStorage.begun].map(Number)")
    return bool(recorded <= total <= begun <= recorded + 1)


@pytest.mark.parametrize("build", ["readable", ""])
def test_records_arrive_from_another_origin_without_a_preflight(
    context: BrowserContext, site: str, ingestion: Ingestion, build: str
) -> None:
    page = visit(context, f"{site}?{build}")
    page.evaluate("record(1000)")
    assert page.evaluate("metrics.flush()") is True
    assert ingestion.total == 1000
    assert {request["method"] for request in ingestion.requests} == {"POST"}
    assert (stats(page)["accepted"], stored(page)) == (1000, 0)


def test_a_queue_outlives_a_reload_while_the_server_is_away(
    context: BrowserContext, site: str, ingestion: Ingestion
) -> None:
    ingestion.tell(down=True)
    page = visit(context, site)
    for _ in range(3):
        page.evaluate("record(100)")
        page.evaluate("metrics.flush(20)")
        page.reload()
    page.evaluate("record(7)")
    eventually(lambda: stats(page)["adopted"] == 300, "the batches of the earlier pages")
    ingestion.tell(up=True)
    eventually(lambda: ingestion.total == 307, "all that was recorded")
    eventually(lambda: stored(page) == 0, "an empty queue")
    assert stats(page)["accepted"] == 307


def test_a_full_queue_drops_the_oldest_and_counts_them_across_a_reload(
    context: BrowserContext, site: str, ingestion: Ingestion
) -> None:
    ingestion.tell(down=True)
    page = visit(context, f"{site}?tiny")
    page.evaluate("record(100)")
    before = stats(page)
    dropped = before["dropped"]["queue_full"]
    assert dropped + before["queuedBatches"] == 100
    assert stored(page) == before["queuedBatches"] > 10
    page.reload()
    eventually(lambda: stats(page)["queuedBatches"] == before["queuedBatches"], "the batches of the earlier page")
    page.evaluate("record(10)")
    dropped += stats(page)["dropped"]["queue_full"]
    ingestion.tell(up=True)
    eventually(lambda: stored(page) == 0, "an empty queue")
    assert ingestion.total == 110 - dropped
    newest = max(batch["sequence"] for batch in ingestion.batches)
    assert newest == 100


@pytest.mark.parametrize("leave", [close_tab, lambda page: page.goto("about:blank")], ids=["close", "navigate"])
def test_a_page_that_goes_away_in_mid_traffic_loses_nothing(
    context: BrowserContext, site: str, ingestion: Ingestion, leave: Callable[[Page], None]
) -> None:
    witness = visit(context, f"{site}?witness")
    page = visit(context, site)
    page.evaluate("setInterval(() => record(3), 1)")
    eventually(lambda: ingestion.total > 100, "some traffic")
    leave(page)
    eventually(lambda: is_all_recorded(witness, ingestion.total), "what was recorded last, without another visit")


def test_a_page_that_is_hidden_sends_what_it_has_and_settles_it_by_the_answer(
    context: BrowserContext, site: str, ingestion: Ingestion
) -> None:
    page = visit(context, f"{site}?slow")
    page.evaluate("record(5)")
    # Headless tabs are never hidden by one another.
    page.evaluate("""() => {
      Object.defineProperty(document, "visibilityState", { value: "hidden" });
      document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
    }""")
    eventually(lambda: stats(page)["accepted"] == 5, "the records accepted")
    assert (ingestion.total, len(ingestion.requests), stored(page)) == (5, 1, 0)


def test_what_a_page_could_not_send_when_it_closed_is_delivered_by_the_next(
    context: BrowserContext, site: str, ingestion: Ingestion
) -> None:
    page = visit(context, site)
    page.evaluate("record(5)")
    eventually(lambda: ingestion.total == 5, "the first records")
    ingestion.tell(down=True)
    page.evaluate("setInterval(() => record(1), 5)")
    eventually(lambda: stats(page)["queuedBatches"] > 1, "a queue")
    close_tab(page)
    ingestion.tell(up=True)
    later = visit(context, site)
    eventually(lambda: is_all_recorded(later, ingestion.total), "all that was recorded")
    eventually(lambda: stored(later) == 0, "an empty queue")


def test_answers_that_never_reach_a_closing_page_are_not_counted_twice(
    context: BrowserContext, site: str, ingestion: Ingestion
) -> None:
    ingestion.tell(script=[{"apply": True, "cut": True}] * 3)
    page = visit(context, site)
    page.evaluate("record(5)")
    page.goto("about:blank")
    later = visit(context, site)
    later.evaluate("record(1)")
    eventually(lambda: stored(later) == 0 and ingestion.total == 6, "both pages' records")
    assert len({request["body"] for request in ingestion.requests}) == 2


def test_a_crashed_tab_leaves_its_queue_to_the_next(context: BrowserContext, site: str, ingestion: Ingestion) -> None:
    ingestion.tell(down=True)
    page = visit(context, site)
    page.evaluate("record(5)")
    eventually(lambda: stored(page) == 1, "a stored batch")
    with page.expect_event("crash"), suppress(Error):
        page.goto("chrome://crash")
    ingestion.tell(up=True)
    later = visit(context, site)
    eventually(lambda: ingestion.total == 5, "the crashed tab's records")
    assert stats(later)["adopted"] == 5


def test_a_duplicated_tab_numbers_its_own_batches(context: BrowserContext, site: str, ingestion: Ingestion) -> None:
    page = visit(context, site)
    page.evaluate("sessionStorage.cart = '1'; record(5)")
    with context.expect_page() as opened:
        page.evaluate("void window.open(location.href)")
    copy = opened.value
    copy.wait_for_load_state()
    assert copy.evaluate("sessionStorage.cart") == "1"
    for _ in range(3):
        for tab in (page, copy):
            tab.evaluate("record(10)")
            tab.evaluate("metrics.flush()")
    assert ingestion.total == 65
    producers = {batch["producer"] for batch in ingestion.batches}
    assert len(producers) == 2


def test_tabs_side_by_side_send_their_own_batches_and_those_of_closed_tabs(
    context: BrowserContext, site: str, ingestion: Ingestion
) -> None:
    ingestion.tell(down=True)
    first, second = visit(context, site), visit(context, site)
    for tab in (first, second):
        tab.evaluate("record(10)")
        tab.evaluate("metrics.flush(20)")
    third = visit(context, site)
    third.evaluate("record(10)")
    third.evaluate("metrics.flush(20)")
    assert [stats(tab)["adopted"] for tab in (first, second, third)] == [0, 0, 0]
    close_tab(first)
    fourth = visit(context, site)
    eventually(lambda: stats(fourth)["adopted"] == 10, "the closed tab's records taken over")
    ingestion.tell(up=True)
    eventually(lambda: stored(fourth) == 0, "an empty queue")
    assert ingestion.total == 30
    assert len(ingestion.requests) == 3


def test_a_page_that_comes_back_from_the_back_forward_cache_begins_a_new_producer(
    context: BrowserContext, site: str, ingestion: Ingestion
) -> None:
    ingestion.tell(down=True)
    page = visit(context, site)
    page.evaluate("globalThis.sameDocument = true; record(10)")
    eventually(lambda: stored(page) == 1, "a stored batch")
    page.goto(f"{site.replace('127.0.0.1', 'localhost')}?elsewhere")
    page.go_back(wait_until="commit")
    assert page.evaluate("globalThis.sameDocument") is True
    page.evaluate("record(10)")
    ingestion.tell(up=True)
    eventually(lambda: stored(page) == 0 and ingestion.total == 20, "both visits' records")
    assert len({batch["producer"] for batch in ingestion.batches}) == 2
    assert stats(page)["accepted"] == 20


def test_a_plain_http_page_without_web_locks_delivers_its_queue_after_a_reload(
    context: BrowserContext, site: str, ingestion: Ingestion
) -> None:
    ingestion.tell(down=True)
    page = visit(context, site.replace("127.0.0.1", "plain.test"))
    assert page.evaluate("[isSecureContext, typeof navigator.locks]") == [False, "undefined"]
    page.evaluate("record(10)")
    page.reload()
    page.evaluate("record(10)")
    ingestion.tell(up=True)
    eventually(lambda: ingestion.total == 20 and stored(page) == 0, "both pages' records")


def test_the_network_coming_back_ends_the_wait_for_a_retry(
    context: BrowserContext, site: str, ingestion: Ingestion
) -> None:
    page = visit(context, site)
    context.set_offline(True)
    page.evaluate("for (let i = 0; i < 4; i++) record(1)")
    eventually(lambda: stats(page)["retries"] >= 7, "a wait of at least three seconds")
    context.set_offline(False)
    eventually(lambda: ingestion.total == 4, "delivery at once", 2.5)


def test_retry_after_is_honoured_across_origins(context: BrowserContext, site: str, ingestion: Ingestion) -> None:
    ingestion.tell(script=[{"status": 429, "headers": {"Retry-After": "1"}}])
    page = visit(context, site)
    page.evaluate("record(1)")
    eventually(lambda: ingestion.total == 1, "the retry")
    refused, accepted = (request["at"] for request in ingestion.requests)
    assert 1000 <= accepted - refused < 3000


def test_storage_that_is_full_or_forbidden_leaves_a_queue_in_memory(
    context: BrowserContext, site: str, ingestion: Ingestion
) -> None:
    page = visit(context, site)
    page.evaluate("""() => {
      for (let size = 2 ** 22; size >= 1;) {
        try { localStorage.fill = (localStorage.fill ?? "") + "x".repeat(size); } catch { size /= 2; }
      }
    }""")
    page.evaluate("metrics.checkoutCompletedTotal({ plan: 'pro' })")
    page.evaluate("metrics.flush()")
    assert (ingestion.total, stats(page)["storageErrors"]) == (1, 1)
    page.evaluate("localStorage.clear()")
    page.evaluate(
        "address => document.body.append(Object.assign(document.createElement('iframe'),"
        " { src: address, sandbox: 'allow-scripts' }))",
        site,
    )
    eventually(lambda: len(page.frames) == 2 and page.frames[1].evaluate("typeof metrics") == "object", "a frame")
    sandboxed = page.frames[1]
    sandboxed.evaluate("record(5)")
    assert sandboxed.evaluate("metrics.flush()") is True
    assert ingestion.total == 6
    assert stats(sandboxed)["accepted"] == 5


def test_local_storage_keeps_the_contract_that_the_fake_of_the_other_tests_keeps(
    context: BrowserContext, site: str
) -> None:
    page = visit(context, site)
    contract = (TESTS / "storage_contract.mjs").read_text(encoding="utf-8").replace("export ", "")
    assert page.evaluate(f"(() => {{ {contract}; return storageFaults(localStorage, 12_000_000); }})()") == []


@pytest.mark.parametrize("series", [50, 300], ids=["folding", "each batch sealed full"])
def test_a_hundred_events_take_less_than_a_millisecond_of_the_main_thread(
    context: BrowserContext, site: str, series: int
) -> None:
    page = visit(context, site)
    session = context.new_cdp_session(page)
    # The thread's own time: what other processes take from it on a busy machine does not count.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def thread_seconds() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    before = thread_seconds()
    page.evaluate(
        """series => {
          for (let i = 0; i < 20_000; i++) {
            metrics.checkoutCompletedTotal({ plan: `plan ${i % series}`, country: "de" });
          }
        }""",
        series,
    )
    milliseconds = (thread_seconds() - before) * 1000 / 200
    print(f"main thread: {milliseconds:.2f} ms for 100 events of {series} series")
    assert milliseconds < 1
