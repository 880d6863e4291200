"""What the gateway serves itself: its first page, and its health."""

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from aiohttp import web

from chassis.health import Health
from chassis.http_server import health_routes
from services.gateway.http_api.shapes import Told
from services.gateway.routes import Audience, Media, Operation, Route

_FIRST_STEPS = Path(__file__).with_name("first_steps.html")
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


class State(Told):
    status: Literal["alive", "started", "starting"]


class Check(Told, omit_defaults=True):
    status: Literal["up", "down"]
    hard: bool
    latency_ms: float
    #: The state of the circuit breaker, where there is one.
    breaker: Literal["closed", "half-open", "open"] | None = None


class Readiness(Told):
    status: Literal["ready", "degraded", "unready"]
    checks: dict[str, Check]


_HEALTH = {
    "/health/live": Operation("Whether it runs", {200: State}),
    "/health/ready": Operation("Whether it can serve", {200: Readiness, 503: Readiness}),
    "/health/startup": Operation("Whether it has started", {200: State, 503: State}),
}


class PageRoutes:
    """`/`, what browsers ask for beside it, and `/health/…`"""

    title = "This gateway"

    def __init__(self, health: Health, *, endpoint: str) -> None:
        self._health = health
        self._page = _FIRST_STEPS.read_text(encoding="utf-8").replace("%ENDPOINT%", endpoint)
        self._policy = content_security_policy(self._page)

    def routes(self) -> Sequence[Route]:
        return [
            Route("GET", "/", self.first_steps, Audience.OPEN, Operation("First steps", {200: Media(("text/html",))})),
            Route("GET", "/favicon.ico", self.no_icon, Audience.OPEN, Operation("No icon", {204: None})),
            *(
                Route("GET", route.path, route.handler, Audience.OPEN, _HEALTH[route.path])
                for route in health_routes(self._health, public=True)
            ),
        ]

    async def no_icon(self, _request: web.Request) -> web.Response:
        """Browsers ask for one; an error in their console would look like ours."""
        return web.Response(status=204, headers={"Cache-Control": "public, max-age=86400"})

    async def first_steps(self, _request: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": self._policy, "Cache-Control": "no-cache"}
        return web.Response(text=self._page, content_type="text/html", headers=headers)


def content_security_policy(page: str) -> str:
    """For a page: nothing but its own style, named by its hash."""
    style = _STYLE.search(page)
    digest = hashlib.sha256(style[1].encode("utf-8") if style else b"").digest()
    source = base64.b64encode(digest).decode("ascii")
    closed = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return f"{closed}; style-src 'sha256-{source}'"
