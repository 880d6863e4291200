"""The other doors for metrics: the same keys and limits as `POST /api/v1/metrics`, answers as each door's own
specification has them. What a body says is the receiver's business."""

from collections import Counter
from collections.abc import Sequence

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from chassis import failpoints
from chassis.errors import UnsupportedMediaType
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from services.gateway import errors
from services.gateway.http_api.bodies import read
from services.gateway.http_api.ingestion import COMPRESSED, Outcome, answer_outcome, content_encoding, rendered
from services.gateway.ingestion_streams import IngestionStreams
from services.gateway.routes import Audience, Header, Media, Operation, Route

#: StatsD has no content type; these are what clients of HTTP say of text.
_LINES = frozenset({"text/plain", "application/octet-stream", "application/x-www-form-urlencoded"})
#: The message of remote write 2.0, as its content type names it.
_WRITE_2 = "io.prometheus.write.v2"
#: Reasons that one answer names.
_MOST_REASONS = 5

_STATSD = Operation("Send StatsD lines", {202: Outcome}, body=Media(tuple(sorted(_LINES))), headers=(COMPRESSED,))
_OTLP_FORMATS = Media(tuple(sorted(errors.OTLP_CONTENT_TYPES)))
_OTLP = Operation("Send OTLP metrics", {200: _OTLP_FORMATS}, body=_OTLP_FORMATS, headers=(COMPRESSED,))
_REMOTE_WRITE = Operation(
    "Send by remote write",
    {204: None},
    "Remote write 1.0. 400: some samples were rejected, the others are stored.",
    body=Media((errors.OTLP_PROTOBUF,)),
    headers=(Header("Content-Encoding", "snappy", required=True),),
)


class DoorRoutes:
    """`POST /api/v1/statsd`, `POST /v1/metrics` and `POST /api/v1/write`"""

    title = "Ingestion"

    def __init__(self, receivers: IngestionStreams) -> None:
        self._receivers = receivers

    def routes(self) -> Sequence[Route]:
        return [
            Route("POST", "/api/v1/statsd", self.statsd, Audience.INGESTION, _STATSD, direct=True),
            Route("POST", errors.OTLP_PATH, self.otlp, Audience.INGESTION, _OTLP, direct=True),
            Route("POST", "/api/v1/write", self.remote_write, Audience.INGESTION, _REMOTE_WRITE, direct=True),
        ]

    async def statsd(self, request: web.Request) -> web.Response:
        """Answers like `POST /api/v1/metrics`, with the positions of lines."""
        if request.content_type not in _LINES:
            raise UnsupportedMediaType("Send StatsD lines as text/plain.")
        return answer_outcome(await self._take(request, pb.DOOR_STATSD, content_encoding(request)))

    async def otlp(self, request: web.Request) -> web.Response:
        """Answers as OTLP/HTTP has it: in the request's format, 400 where nothing was accepted."""
        content_type = request.content_type
        if content_type not in errors.OTLP_CONTENT_TYPES:
            raise UnsupportedMediaType("Send OTLP metrics as application/x-protobuf or application/json.")
        door = pb.DOOR_OTLP_PROTOBUF if content_type == errors.OTLP_PROTOBUF else pb.DOOR_OTLP_JSON
        outcome = await self._take(request, door, content_encoding(request))
        response = ExportMetricsServiceResponse()
        if outcome.rejected:
            if not outcome.accepted:
                raise errors.points_rejected(_reasons(outcome))
            response.partial_success.rejected_data_points = len(outcome.rejected) + outcome.rejected_more
            response.partial_success.error_message = _reasons(outcome)
        body, content_type = errors.otlp(response, content_type)
        return web.Response(body=body, content_type=content_type)

    async def remote_write(self, request: web.Request) -> web.Response:
        """Answers as remote write 1.0 has it: 204, or 400 where samples were rejected, which are not to be sent again;
        those that were not are durable."""
        if request.content_type != errors.OTLP_PROTOBUF or _WRITE_2 in request.headers["Content-Type"]:
            raise UnsupportedMediaType("Send remote write 1.0, as application/x-protobuf.")
        if request.headers.get("Content-Encoding", "").strip().lower() != "snappy":
            raise UnsupportedMediaType("The Content-Encoding of remote write is snappy.")
        outcome = await self._take(request, pb.DOOR_REMOTE_WRITE, "snappy")
        if outcome.rejected:
            raise errors.samples_rejected(_reasons(outcome), rendered(outcome))
        return web.Response(status=204)

    async def _take(self, request: web.Request, door: "pb.Door.ValueType", encoding: str) -> pb.IngestBatchResponse:
        outcome = await self._receivers.take(await read(request), encoding, door)
        if failpoints.ARMED:
            await failpoints.reached("before-answer")
        return outcome


def _reasons(outcome: pb.IngestBatchResponse) -> str:
    """Why points were rejected, the most frequent reasons first, each with how often it is among the listed ones."""
    reasons = Counter((one.code, one.message) for one in outcome.rejected)
    named = [f"{times} x {code}: {message}" for (code, message), times in reasons.most_common(_MOST_REASONS)]
    more = ["and others"] if len(reasons) > _MOST_REASONS or outcome.rejected_more else []
    return "; ".join([*named, *more])
