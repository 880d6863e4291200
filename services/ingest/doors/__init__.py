"""The formats of the public doors, one module each: bytes in, a batch out.

`POST /api/v1/metrics` has its format in `services.ingest.decoding`. The others bring data points, which name no
producer: such a request is counted at least once where its sender repeats it.
"""

from collections.abc import Callable, Mapping, Sequence

from services.ingest import decoding
from services.ingest.decoding import Batch
from services.ingest.domain import MOST_POINTS_IN_REQUEST, Door, Fault
from services.ingest.doors import exposition_protobuf, exposition_text, otlp, remote_write, statsd
from services.ingest.doors.exposition import Family, Push, points_of
from services.ingest.errors import BatchTooLarge, MalformedBody
from services.ingest.points import Point

_DECODERS: Mapping[Door, Callable[[bytes], Sequence[Point | Fault]]] = {
    Door.STATSD: statsd.decode,
    Door.OTLP_PROTOBUF: otlp.decode_protobuf,
    Door.OTLP_JSON: otlp.decode_json,
    Door.REMOTE_WRITE: remote_write.decode,
}
_PARSERS: Mapping[Door, Callable[[bytes], Sequence[Family]]] = {
    Door.PUSH_TEXT: exposition_text.parse,
    Door.PUSH_PROTOBUF: exposition_protobuf.parse,
}


def decode(body: bytes, content_encoding: str, door: Door, push: Push | None = None) -> Batch:
    """The batch in the body of a request through a door; `push` where that is one for pushes.

    Raises the errors of `decoding.decode`, and MalformedBody where the body is not in the door's format.
    """
    if door is Door.METRICS:
        return decoding.decode(body, content_encoding)
    plain = decoding.decompress(body, content_encoding)
    if door not in _PARSERS:
        points = _DECODERS[door](plain)
    elif push is not None:
        points = points_of(_PARSERS[door](plain), push)
    else:
        raise MalformedBody("A push belongs to a group, which this one does not name.")
    if len(points) > MOST_POINTS_IN_REQUEST:
        raise BatchTooLarge(f"A request takes at most {MOST_POINTS_IN_REQUEST} data points.")
    return Batch(producer=b"", sequence=0, floor=0, metrics=[], points=points)
