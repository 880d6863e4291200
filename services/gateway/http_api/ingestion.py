"""The door for batches of metrics. Their content is the receiver's business: here only their size is looked at."""

from collections.abc import Sequence
from typing import Any

from aiohttp import hdrs, web
from multidict import CIMultiDict

from chassis import failpoints
from chassis.errors import UnsupportedMediaType
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from services.gateway import errors
from services.gateway.http_api.bodies import answer, read
from services.gateway.ingestion_streams import IngestionStreams
from services.gateway.routes import Door, Route

#: A beacon can only send text/plain without asking first.
_CONTENT_TYPES = frozenset({"application/json", "text/plain"})
_CONTENT_ENCODINGS = {"": "", "identity": "", "gzip": "gzip", "zstd": "zstd"}
_JSON = CIMultiDict({hdrs.CONTENT_TYPE: "application/json"})


class IngestionRoutes:
    """`POST /api/v1/metrics`"""

    def __init__(self, receivers: IngestionStreams) -> None:
        self._receivers = receivers

    def routes(self) -> Sequence[Route]:
        return [Route("POST", "/api/v1/metrics", self.ingest, Door.INGESTION, direct=True)]

    async def ingest(self, request: web.Request) -> web.Response:
        if request.content_type not in _CONTENT_TYPES:
            raise UnsupportedMediaType("Send metrics as application/json, or as text/plain from a beacon.")
        encoding = content_encoding(request)
        outcome = await self._receivers.take(await read(request), encoding)
        if failpoints.ARMED:
            await failpoints.reached("before-answer")
        if not outcome.rejected and not outcome.duplicate:
            body = b'{"accepted":%d,"rejected":[]}' % outcome.accepted
            return web.Response(status=202, body=body, headers=_JSON.copy())
        return answer_outcome(outcome)


def content_encoding(request: web.Request) -> str:
    """How the body is compressed, as the receiver is told. Raises UnsupportedMediaType."""
    encoding = _CONTENT_ENCODINGS.get(request.headers.get("Content-Encoding", "").strip().lower())
    if encoding is None:
        raise UnsupportedMediaType("The Content-Encoding of metrics is gzip, zstd or none.")
    return encoding


def answer_outcome(outcome: pb.IngestBatchResponse) -> web.Response:
    """The 202. Raises BATCH_REJECTED where nothing was accepted."""
    told = rendered(outcome)
    if outcome.accepted == 0 and outcome.rejected and not outcome.duplicate:
        raise errors.batch_rejected(told)
    return answer(told, status=202)


def rendered(outcome: pb.IngestBatchResponse) -> dict[str, Any]:
    """What became of a batch, as clients read it."""
    told: dict[str, Any] = {
        "accepted": outcome.accepted,
        "rejected": [{"index": one.index, "code": one.code, "message": one.message} for one in outcome.rejected],
    }
    if outcome.duplicate:
        told["duplicate"] = True
    if outcome.rejected_more:
        told["rejectedMore"] = outcome.rejected_more
    return told
