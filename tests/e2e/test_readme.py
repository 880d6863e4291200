"""The README's first metric in two minutes and its web page, word for word."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT, Ports
from deploy.local.programs import port_is_free
from tests.console_blocks import commands
from tests.e2e.pages import visiting
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

FIRST_METRIC, WEB_PAGE = "A first metric in two minutes", "In a web page"


def typed(section: str, written_and_here: Mapping[str, str]) -> list[str]:
    """What a section has somebody type, but for the ports that are others here."""
    found = commands(CHECKOUT / "README.md", section)
    for written, here in written_and_here.items():
        found = [command.replace(written, here) for command in found]
    return found


@asynccontextmanager
async def shell(script: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs inside the block at most, with all that it has started."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script,
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def counted(output: bytes) -> str:
    """The value in the answer of the last query."""
    answer = json.loads(output[output.rindex(b'{"status"') :])
    (series,) = answer["data"]["result"]
    return str(series["value"][1])


async def test_the_first_metric_in_two_minutes_works_as_it_is_written(suite: Suite, tmp_path: Path) -> None:
    suite.wait_ready()
    script = "\n".join(typed(FIRST_METRIC, {"8080": str(suite.port)}))
    async with shell(script, tmp_path) as process:
        output, faults = await process.communicate()
    assert process.returncode == 0, faults.decode()
    assert counted(output) == "3"


@pytest.mark.parametrize("script", ["fails", "hangs"])
async def test_the_web_page_is_not_disturbed_where_the_script_does_not_come(script: str, tmp_path: Path) -> None:
    _, write, _ = typed(WEB_PAGE, {})
    async with shell(f"PUBLIC=pk_any\n{write}", tmp_path) as writing:
        await writing.communicate()
    address = "http://localhost:8000/"
    async with visiting() as visitor:
        page = await visitor.visit("about:blank")
        await page.route(address, lambda route: route.fulfill(path=tmp_path / "index.html"))
        async with page.expect_request("**/sdk/**"):
            await page.route("**/sdk/**", lambda route: route.abort() if script == "fails" else None)
            await page.goto(address, wait_until="domcontentloaded", timeout=10_000)
        await page.get_by_role("button", name="Order").click()
        assert await page.evaluate("typeof pulsegate") == "undefined"
        assert visitor.errors == []


async def test_the_web_page_counts_as_it_is_written(
    suite: Suite, tmp_path: Path, port_blocks: Callable[[], Ports]
) -> None:
    suite.wait_ready()
    port = port_blocks().public
    written_and_here = {"8080": str(suite.port), "8000": str(port), "ada@example.com": "grace@example.com"}
    *first, ask = typed(FIRST_METRIC, written_and_here)
    script = "\n".join([*first, 'echo "$KEY" > key', *typed(WEB_PAGE, written_and_here)])

    async def served() -> bool:
        assert serving.returncode is None, (await serving.communicate())[1].decode()
        return not port_is_free(port)

    async def orders() -> str:
        async with shell(f"KEY=$(cat key)\n{ask}", tmp_path) as asking:
            output, _ = await asking.communicate()
        return counted(output)

    async def all_orders() -> bool:
        return await orders() == "7"

    async with shell(script, tmp_path) as serving, visiting() as visitor:
        await eventually(served, within_seconds=60, what="the page is served")
        page = await visitor.visit(f"http://localhost:{port}")
        for _ in range(4):
            await page.get_by_role("button", name="Order").click()
        await eventually(all_orders, within_seconds=60, what="three orders from Python and four from the page")
        assert visitor.errors == []
