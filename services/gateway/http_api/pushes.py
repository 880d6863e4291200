"""The door for clients of a Pushgateway: the same paths, methods and statuses, and a key for authentication.

A client looks at the status alone: 200 (202 for DELETE) where something was taken or there was nothing to take, 400
where the body cannot be read or nothing of it was taken. What became of each series is in the body, as elsewhere.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from urllib.parse import unquote

from aiohttp import web

from chassis import failpoints
from chassis.errors import Malformed
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from services.gateway import errors
from services.gateway.http_api.bodies import answer, read
from services.gateway.http_api.ingestion import CONTENT_ENCODINGS, Outcome, content_encoding, rendered
from services.gateway.ingestion_streams import IngestionStreams
from services.gateway.routes import Audience, Header, Media, Operation, Route

_PATHS = ("/metrics/job/{group:.+}", "/metrics/job@base64/{group:.+}")
_PREFIX = "/metrics/"
_PROTOBUF = "application/vnd.google.protobuf"
_ENCODED = "@base64"
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
#: Far more than a definition has labels.
_MOST_LABELS = 64
_GROUP = "As to a Pushgateway. The group is the job, then label and value in turns: batch/instance/eu-1."
#: Pushgateway's `snappy` is the framing format, which has a name of its own.
_ENCODINGS = {**CONTENT_ENCODINGS, "snappy": "x-snappy-framed", "x-snappy-framed": "x-snappy-framed"}
_COMPRESSED = Header("Content-Encoding", "gzip, zstd or snappy (framed), where the body is compressed.")
_FORMATS = Media(("text/plain", _PROTOBUF))


class PushRoutes:
    """`PUT`, `POST` and `DELETE /metrics/job/{job}[/{label}/{value}…]`"""

    title = "Ingestion"

    def __init__(self, receivers: IngestionStreams) -> None:
        self._receivers = receivers

    def routes(self) -> Sequence[Route]:
        handlers = {"PUT": self.push, "POST": self.push, "DELETE": self.delete}
        return [
            Route(method, path, handler, Audience.INGESTION, _operation(method, path))
            for path in _PATHS
            for method, handler in handlers.items()
        ]

    async def delete(self, request: web.Request) -> web.Response:
        """What a group has counted stays counted, and its gauges end by themselves: there is nothing to be done."""
        _group(request)
        return web.Response(status=202)

    async def push(self, request: web.Request) -> web.Response:
        """What the body says; what it does not say stays as it is."""
        encoding, group = content_encoding(request, _ENCODINGS), _group(request)
        # As Pushgateway has it: whatever is not said to be protobuf is text.
        door = pb.DOOR_PUSH_PROTOBUF if request.content_type == _PROTOBUF else pb.DOOR_PUSH_TEXT
        outcome = await self._receivers.take(await read(request), encoding, door, group)
        if failpoints.ARMED:
            await failpoints.reached("before-answer")
        if outcome.rejected and not outcome.accepted:
            raise errors.push_rejected(rendered(outcome))
        return answer(rendered(outcome))


def _operation(method: str, path: str) -> Operation:
    encoded = " of a job in base64url" if _ENCODED in path else ""
    if method == "DELETE":
        return Operation(f"End a group{encoded}", {202: None}, "What was counted stays counted.")
    what = "Replace a group" if method == "PUT" else "Push to a group"
    return Operation(what + encoded, {200: Outcome}, _GROUP, body=_FORMATS, headers=(_COMPRESSED,))


def _group(request: web.Request) -> pb.PushGroup:
    return pb.PushGroup(labels=grouping_labels(request.rel_url.raw_path.removeprefix(_PREFIX)))


def grouping_labels(path: str) -> list[str]:
    """Names and values, alternating, of the labels in a path such as `job/batch/instance@base64/ZXUvMQ`.

    Raises Malformed where it is none.
    """
    parts = path.removesuffix("/").split("/")
    if len(parts) % 2 or len(parts) > 2 * _MOST_LABELS:
        raise Malformed(f"A push goes to /metrics/job/JOB/LABEL/VALUE…, with at most {_MOST_LABELS} labels.")
    pairs = [_pair(name, value) for name, value in zip(parts[::2], parts[1::2], strict=True)]
    if len(dict(pairs)) < len(pairs):
        raise Malformed("A grouping label is there twice.")
    if not pairs[0][1]:
        raise Malformed("The job of a push has a name.")
    return [text for pair in pairs for text in pair]


def _pair(name: str, value: str) -> tuple[str, str]:
    name = unquote(name)
    label = name.removesuffix(_ENCODED)
    if not _LABEL_NAME.fullmatch(label) or label.startswith("__"):
        raise Malformed(f"{label[:80]!r} is no name of a grouping label.")
    try:
        return label, _decoded(value) if name.endswith(_ENCODED) else unquote(value, errors="strict")
    except ValueError as error:
        raise Malformed(f"The value of the grouping label {label[:80]!r} cannot be read.") from error


def _decoded(value: str) -> str:
    """Of base64 for addresses (RFC 4648, section 5), with or without padding. Raises ValueError."""
    stem = unquote(value).rstrip("=")
    if not re.fullmatch(r"[A-Za-z0-9_-]*", stem):
        raise binascii.Error("not the alphabet of base64url")
    return base64.urlsafe_b64decode(stem + "=" * (-len(stem) % 4)).decode()
