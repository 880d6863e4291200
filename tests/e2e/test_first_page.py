"""The page that the gateway shows at `/`."""

import re
from html import unescape

import pytest

from tests.e2e.api import Api
from tests.e2e.pages import visiting

pytestmark = pytest.mark.timeout(120)


async def test_it_fits_a_telephones_screen_and_the_console_stays_empty(api: Api) -> None:
    async with visiting() as visitor:
        page = await visitor.visit("about:blank")
        messages: list[str] = []
        page.on("console", lambda message: messages.append(message.text))
        for width in (320, 390, 1280):
            await page.set_viewport_size({"width": width, "height": 800})
            await page.goto(f"{api.base_url}/")
            wide = "[document.documentElement, ...document.querySelectorAll('pre')]"
            overflowing = f"{wide}.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent)"
            assert await page.evaluate(overflowing) == []
        assert messages == []
        assert visitor.errors == []


async def test_browsers_are_answered_when_they_ask_for_an_icon(api: Api) -> None:
    assert (await api.call("GET", "/favicon.ico")).status == 204


async def test_its_script_tag_is_whole_and_followed_by_a_call(api: Api) -> None:
    text = unescape((await api.call("GET", "/")).text)
    assert re.search(
        r'<script async src="http://\S+/sdk/v1/pk_….js"></script>\n'
        r"<button onclick='globalThis\.pulsegate\?\.\w+\(\{plan: \"pro\"\}\)'>",
        text,
    )
