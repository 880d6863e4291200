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
from services.gateway.http_api.ingestion import answer_outcome, content_encoding
from services.gateway.ingestion_streams import IngestionStreams
from services.gateway.routes import Door, Route

#: StatsD has no content type; these are what clients of HTTP say of text.
_LINES = frozenset({"text/plain", "application/octet-stream", "application/x-www-form-urlencoded"})
#: Reasons that one answer names.
_MOST_REASONS = 5


class DoorRoutes:
    """`POST /api/v1/statsd` and `POST /v1/metrics`"""

    def __init__(self, receivers: IngestionStreams) -> None:
        self._receivers = receivers

    def routes(self) -> Sequence[Route]:
        return [
            Route("POST", "/api/v1/statsd", self.statsd, Door.INGESTION, direct=True),
            Route("POST", errors.OTLP_PATH, self.otlp, Door.INGESTION, direct=True),
        ]

    async def statsd(self, request: web.Request) -> web.Response:
        """Answers like `POST /api/v1/metrics`, with the positions of lines."""
        if request.content_type not in _LINES:
            raise UnsupportedMediaType("Send StatsD lines as text/plain.")
        return answer_outcome(await self._take(request, pb.DOOR_STATSD))

    async def otlp(self, request: web.Request) -> web.Response:
        """Answers as OTLP/HTTP has it: in the request's format, 400 where nothing was accepted."""
        content_type = request.content_type
        if content_type not in errors.OTLP_CONTENT_TYPES:
            raise UnsupportedMediaType("Send OTLP metrics as application/x-protobuf or application/json.")
        door = pb.DOOR_OTLP_PROTOBUF if content_type == errors.OTLP_PROTOBUF else pb.DOOR_OTLP_JSON
        outcome = await self._take(request, door)
        response = ExportMetricsServiceResponse()
        if outcome.rejected:
            if not outcome.accepted:
                raise errors.points_rejected(_reasons(outcome))
            response.partial_success.rejected_data_points = len(outcome.rejected) + outcome.rejected_more
            response.partial_success.error_message = _reasons(outcome)
        body, content_type = errors.otlp(response, content_type)
        return web.Response(body=body, content_type=content_type)

    async def _take(self, request: web.Request, door: "pb.Door.ValueType") -> pb.IngestBatchResponse:
        encoding = content_encoding(request)
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
