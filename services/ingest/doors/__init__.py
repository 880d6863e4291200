"""The formats of the public doors, one module each: bytes in, a batch out.

`POST /api/v1/metrics` has its format in `services.ingest.decoding`. The others bring data points, which name no
producer: such a request is counted at least once where its sender repeats it.
"""

from collections.abc import Callable, Iterator, Mapping

from services.ingest import decoding
from services.ingest.decoding import Batch
from services.ingest.domain import MOST_POINTS_IN_REQUEST, Door, Fault
from services.ingest.doors import exposition_protobuf, exposition_text, otlp, remote_write, statsd
from services.ingest.doors.exposition import Family, Push, points_of
from services.ingest.errors import BatchTooLarge, MalformedBody
from services.ingest.points import Point
from services.ingest.turns import Steps

_DECODERS: Mapping[Door, Callable[[bytes], Iterator[Point | Fault]]] = {
    Door.STATSD: statsd.decode,
    Door.OTLP_PROTOBUF: otlp.decode_protobuf,
    Door.REMOTE_WRITE: remote_write.decode,
}
_PARSERS: Mapping[Door, Callable[[bytes], Steps[list[Family]]]] = {
    Door.PUSH_TEXT: exposition_text.parse,
    Door.PUSH_PROTOBUF: exposition_protobuf.parse,
}


def decode(plain: bytes, door: Door, push: Push | None = None) -> Steps[Batch]:
    """The batch in the decompressed body of a request through a door; `push` where that is one for pushes.

    Raises the errors of `decoding.decode`, and MalformedBody where the body is not in the door's format.
    """
    if door is Door.METRICS:
        return decoding.decode(plain, "")
    points: list[Point | Fault] = []
    for point in (yield from _points(plain, door, push)):
        if len(points) == MOST_POINTS_IN_REQUEST:
            raise BatchTooLarge(f"A request takes at most {MOST_POINTS_IN_REQUEST} data points.")
        points.append(point)
        yield
    return Batch(producer=b"", sequence=0, floor=0, metrics=[], points=points)


def _points(plain: bytes, door: Door, push: Push | None) -> Steps[Iterator[Point | Fault]]:
    if door is Door.OTLP_JSON:
        return (yield from otlp.decode_json(plain))
    if door not in _PARSERS:
        return _DECODERS[door](plain)
    if push is None:
        raise MalformedBody("A push belongs to a group, which this one does not name.")
    return points_of((yield from _PARSERS[door](plain)), push)
