"""The delivery ledger of a project."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from aiohttp import web

from chassis.clock import Clock, from_unix_ms, rfc3339, to_unix_ms
from chassis.errors import Invalid
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from services.gateway.clients.ledger import Ledger as LedgerClient
from services.gateway.http_api.bodies import Asking, answer
from services.gateway.http_api.shapes import Asked, Moment, Told
from services.gateway.routes import Audience, Operation, Route

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
    "SOURCE_LIMIT_REACHED": "Send from fewer sources or series, or ask for more (PULSEGATE_SOURCES_PER_PROJECT).",
    "CARDINALITY_LIMIT": "Send fewer distinct values, no ids; or raise the label's maxDistinct or the series' budget.",
    "TIMESTAMP_OUT_OF_RANGE": "Set the sender's clock, or leave the timestamp out.",
}
_REJECTIONS = (
    "The last one of each metric and code. CARDINALITY_LIMIT is no rejection: it tells what was taken over a budget of "
    "series and counted as __other__, and in which hour."
)
_NO_ADVICE = "See the message of the last one."


class Span(Asked):
    """Which lines of the ledger are wanted."""

    #: The last day, where it is left out.
    from_: Moment | None = msgspec.field(name="from", default=None)
    #: Now, where it is left out.
    to: Moment | None = None
    #: "" asks for all.
    metric: str = ""
    page_token: str = ""


class LedgerLine(Told):
    metric: str
    #: The hour's begin.
    from_: Moment = msgspec.field(name="from")
    received: int
    accepted: int
    #: By code.
    rejected: dict[str, int]
    duplicate: int
    committed: int
    folded: int


class Ledger(Told):
    items: list[LedgerLine]
    next_page_token: str
    #: By sink.
    delivered_until: dict[str, Moment]


class LastRejection(Told):
    metric: str
    code: str
    count: int
    message: str
    last_at: Moment
    advice: str


class LastRejections(Told):
    items: list[LastRejection]
    #: Always empty: all are told at once, 5 000 at most.
    next_page_token: str = ""


class LedgerRoutes:
    """`/api/v1/projects/{projectId}/ledger` and `…/rejections`"""

    title = "Delivery ledger"

    def __init__(self, ledger: LedgerClient, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    def routes(self) -> Sequence[Route]:
        project = "/api/v1/projects/{projectId}"
        return [
            Route(
                "GET",
                project + "/ledger",
                Asking(Span, self.lines),
                Audience.READ,
                Operation("Show the ledger", {200: Ledger}),
            ),
            Route(
                "GET",
                project + "/rejections",
                self.rejections,
                Audience.READ,
                Operation("List rejections", {200: LastRejections}, _REJECTIONS),
            ),
        ]

    async def lines(self, _request: web.Request, span: Span) -> web.Response:
        end = _moment("to", span.to) or from_unix_ms(self._clock.now_ms())
        begin = _moment("from", span.from_) or end - _USUAL_SPAN
        found = await self._ledger.lines(to_unix_ms(begin), to_unix_ms(end), span.metric, span.page_token)
        delivered = {sink: rfc3339(from_unix_ms(until_ms)) for sink, until_ms in found.delivered_until_ms.items()}
        return answer(Ledger([_line(line) for line in found.lines], found.next_page_token, delivered))

    async def rejections(self, _request: web.Request) -> web.Response:
        found = await self._ledger.rejections()
        return answer(LastRejections([_rejection(each) for each in found.rejections]))


def _moment(name: str, text: str | None) -> datetime | None:
    """The moment that a parameter names, None where it is left out. Raises Invalid."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or not 1970 < found.year < 9999:
        raise Invalid.fields({name: "must be a moment as of RFC 3339, such as 2026-01-31T08:00:00Z"})
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _line(line: pb.LedgerLine) -> LedgerLine:
    return LedgerLine(
        metric=line.metric,
        from_=rfc3339(from_unix_ms(line.hour_ms)),
        received=line.received,
        accepted=line.accepted,
        rejected=dict(line.rejected),
        duplicate=line.duplicate,
        committed=line.committed,
        folded=line.folded,
    )


def _rejection(each: pb.LastRejection) -> LastRejection:
    return LastRejection(
        metric=each.metric,
        code=each.code,
        count=each.count,
        message=each.example,
        last_at=rfc3339(from_unix_ms(each.last_ms)),
        advice=_ADVICE.get(each.code, _NO_ADVICE),
    )
