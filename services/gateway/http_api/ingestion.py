"""The door for batches of metrics. Their content is the receiver's business: here only their size is looked at."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import hdrs, web
from multidict import CIMultiDict

from chassis import failpoints
from chassis.errors import UnsupportedMediaType
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from services.gateway import errors
from services.gateway.http_api.bodies import answer, read
from services.gateway.http_api.shapes import Told
from services.gateway.ingestion_streams import IngestionStreams
from services.gateway.routes import Audience, Header, Media, Operation, Route

#: A beacon can only send text/plain without asking first.
_CONTENT_TYPES = frozenset({"application/json", "text/plain"})
CONTENT_ENCODINGS = {"": "", "identity": "", "gzip": "gzip", "zstd": "zstd"}
_PROMISE = (
    "1 to 100 metrics; 202 once those that are accepted are durable. With `producer` and `sequence` a batch may be "
    "sent again with the same bytes for 8 days, and counts once, as it was judged at first. The receiver that took it "
    "repeats that verdict; another one, or the same after a restart, answers by today's definitions, which may be 422 "
    "where they have changed. A 5xx, or no answer, says nothing: send the same bytes again."
)
_JSON = CIMultiDict({hdrs.CONTENT_TYPE: "application/json"})


class Exemplar(msgspec.Struct, rename="camel"):
    """The span in which a metric was counted or observed, in hexadecimal."""

    trace_id: str
    span_id: str


class Sample(msgspec.Struct, rename="camel"):
    """A metric of a batch."""

    name: str
    #: An array is for histograms and summaries: observations, at most 1000.
    value: float | list[float]
    labels: dict[str, str] = {}
    #: Unix milliseconds.
    timestamp: float | None = None
    exemplar: Exemplar | None = None


class Batch(msgspec.Struct, rename="camel"):
    """What the receiver decodes. Members that it does not know are ignored."""

    metrics: list[Sample]
    #: A UUID, together with the sequence.
    producer: str = ""
    sequence: int = 0
    floor: int = 0


class RejectedMetric(Told):
    #: Its position in the batch, from 0.
    index: int
    code: str
    message: str


class Outcome(Told, omit_defaults=True):
    accepted: int
    rejected: list[RejectedMetric]
    duplicate: bool = False
    #: Rejected ones that are not listed.
    rejected_more: int = 0


#: How a body may be compressed.
COMPRESSED = Header("Content-Encoding", "gzip or zstd, where the body is compressed.")


class IngestionRoutes:
    """`POST /api/v1/metrics`"""

    title = "Ingestion"

    def __init__(self, receivers: IngestionStreams) -> None:
        self._receivers = receivers

    def routes(self) -> Sequence[Route]:
        operation = Operation(
            "Send metrics",
            {202: Outcome},
            _PROMISE,
            body=Media(("application/json", "text/plain"), Batch),
            headers=(COMPRESSED,),
        )
        return [Route("POST", "/api/v1/metrics", self.ingest, Audience.INGESTION, operation, direct=True)]

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


def content_encoding(request: web.Request, taken: Mapping[str, str] = CONTENT_ENCODINGS) -> str:
    """How the body is compressed, as the receiver is told; `taken` names that by the header. Raises
    UnsupportedMediaType."""
    encoding = taken.get(request.headers.get("Content-Encoding", "").strip().lower())
    if encoding is None:
        named = ", ".join([name for name in taken if name not in ("", "identity")])
        raise UnsupportedMediaType(f"The Content-Encoding of metrics is {named} or none.")
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
