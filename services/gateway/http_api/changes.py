"""Tells the cache of reads what was changed."""

from aiohttp import web

from services.gateway.read_cache import ReadCache
from services.gateway.routes import CALLER, Handler

_READING = frozenset({"GET", "HEAD"})


class Changes:
    """A stage for what may change a project, after the one that says who calls."""

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def told(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Also where the call failed: it may have changed something all the same."""
        try:
            return await handler(request)
        finally:
            project_id = request[CALLER].principal.project_id
            if project_id and request.method not in _READING:
                await self._cache.changed(project_id)
