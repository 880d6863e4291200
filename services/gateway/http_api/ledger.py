"""The delivery ledger of a project."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from chassis.clock import Clock, from_unix_ms, rfc3339, to_unix_ms
from chassis.errors import Invalid
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from services.gateway.clients import Ledger
from services.gateway.http_api.bodies import answer
from services.gateway.routes import Door, Route

_USUAL_SPAN = timedelta(days=1)

#: What helps against a rejection, by its code.
_ADVICE: Mapping[str, str] = {
    "METRIC_NOT_DEFINED": "Define the metric in this project, or correct its name where it is sent.",
    "METRIC_MALFORMED": "Send an object with name, value, labels and timestamp; an array has 1 to 1000 observations.",
    "METRIC_TYPE_MISMATCH": "Send one number for a counter or gauge; arrays are for histograms and summaries.",
    "VALUE_NOT_FINITE": "Send finite numbers; leave out what could not be measured.",
    "VALUE_NEGATIVE": "Send what is added to a counter, which is never negative, or define a gauge.",
    "LABEL_MISSING": "Send the label, or make it optional in the definition.",
    "LABEL_UNKNOWN": "Add the label to the definition, or leave it out.",
    "LABEL_VALUE_NOT_ALLOWED": "Add the value to those that the definition allows, or correct it where it is sent.",
    "LABEL_VALUE_TOO_LONG": "Shorten the value; labels are for few distinct, short values.",
    "TIMESTAMP_OUT_OF_RANGE": "Set the sender's clock, or leave the timestamp out.",
}
_NO_ADVICE = "See the message of the last one."


class LedgerRoutes:
    """`/api/v1/projects/{projectId}/ledger` and `…/rejections`"""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    def routes(self) -> Sequence[Route]:
        project = "/api/v1/projects/{projectId}"
        return [
            Route("GET", project + "/ledger", self.lines, Door.READ),
            Route("GET", project + "/rejections", self.rejections, Door.READ),
        ]

    async def lines(self, request: web.Request) -> web.Response:
        now = from_unix_ms(self._clock.now_ms())
        end = _moment(request, "to", now)
        begin = _moment(request, "from", end - _USUAL_SPAN)
        metric, page_token = (request.query.get(name, "") for name in ("metric", "pageToken"))
        found = await self._ledger.lines(to_unix_ms(begin), to_unix_ms(end), metric, page_token)
        delivered = {sink: rfc3339(from_unix_ms(until_ms)) for sink, until_ms in found.delivered_until_ms.items()}
        return answer(
            {
                "items": [_line(line) for line in found.lines],
                "nextPageToken": found.next_page_token,
                "deliveredUntil": delivered,
            }
        )

    async def rejections(self, _request: web.Request) -> web.Response:
        found = await self._ledger.rejections()
        return answer({"items": [_rejection(each) for each in found.rejections]})


def _moment(request: web.Request, name: str, default: datetime) -> datetime:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or not 1970 < found.year < 9999:
        raise Invalid.fields({name: "must be a moment as of RFC 3339, such as 2026-01-31T08:00:00Z"})
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _line(line: pb.LedgerLine) -> dict[str, Any]:
    return {
        "metric": line.metric,
        "from": rfc3339(from_unix_ms(line.hour_ms)),
        "received": line.received,
        "accepted": line.accepted,
        "rejected": dict(line.rejected),
        "duplicate": line.duplicate,
        "committed": line.committed,
        "folded": line.folded,
    }


def _rejection(each: pb.LastRejection) -> dict[str, Any]:
    return {
        "metric": each.metric,
        "code": each.code,
        "count": each.count,
        "message": each.example,
        "lastAt": rfc3339(from_unix_ms(each.last_ms)),
        "advice": _ADVICE.get(each.code, _NO_ADVICE),
    }
