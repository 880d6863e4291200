"""Reads that are not sent twice: an ETag for each answer, and 304 where the client has it (RFC 9110, 13.1.2)."""

from aiohttp import web

from services.gateway.http_api.bodies import etag_of, has_it
from services.gateway.routes import Handler

#: Kept by the client alone, which asks each time whether it is still true.
_PRIVATE = "private, no-cache"


async def revalidated(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A stage for reads. An answer has the ETag that its handler gave it, else one made of its bytes."""
    response = await handler(request)
    if request.method not in ("GET", "HEAD") or response.status != 200 or not isinstance(response, web.Response):
        return response
    if not isinstance(response.body, bytes):
        return response
    if "ETag" not in response.headers:
        response.headers["ETag"] = etag_of(response.body)
    response.headers.setdefault("Cache-Control", _PRIVATE)
    if not has_it(request, response.headers["ETag"]):
        return response
    known = {name: value for name, value in response.headers.items() if not name.lower().startswith("content-")}
    return web.Response(status=304, headers=known)
