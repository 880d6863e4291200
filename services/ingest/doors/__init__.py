"""The formats of the public doors, one module each: bytes in, a batch out.

`POST /api/v1/metrics` has its format in `services.ingest.decoding`. The others bring data points, which name no
producer: such a request is counted at least once where its sender repeats it.
"""

from collections.abc import Callable, Mapping, Sequence

from services.ingest import decoding
from services.ingest.decoding import Batch
from services.ingest.domain import MOST_POINTS_IN_REQUEST, Door, Fault
from services.ingest.doors import otlp, remote_write, statsd
from services.ingest.errors import BatchTooLarge
from services.ingest.points import Point

_DECODERS: Mapping[Door, Callable[[bytes], Sequence[Point | Fault]]] = {
    Door.STATSD: statsd.decode,
    Door.OTLP_PROTOBUF: otlp.decode_protobuf,
    Door.OTLP_JSON: otlp.decode_json,
    Door.REMOTE_WRITE: remote_write.decode,
}


def decode(body: bytes, content_encoding: str, door: Door) -> Batch:
    """The batch in the body of a request through a door.

    Raises the errors of `decoding.decode`, and MalformedBody where the body is not in the door's format.
    """
    if door is Door.METRICS:
        return decoding.decode(body, content_encoding)
    points = _DECODERS[door](decoding.decompress(body, content_encoding))
    if len(points) > MOST_POINTS_IN_REQUEST:
        raise BatchTooLarge(f"A request takes at most {MOST_POINTS_IN_REQUEST} data points.")
    return Batch(producer=b"", sequence=0, floor=0, metrics=[], points=points)
