"""One request to a sink, again and again until there is an answer that says something about the request itself."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import tenacity

from chassis import logs
from chassis.breakers import Breaker
from chassis.clock import Clock
from chassis.errors import Unavailable
from services.ingest import metrics

log = logs.get(__name__)

Send = Callable[[], Awaitable["Answer"]]

_SLOWEST_RETRY_SECONDS = 5.0
#: The longest pause that a sink may ask for.
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sink said to a request."""

    #: HTTP status; 0: no answer.
    status: int
    #: The beginning of its text, or why there is no answer.
    text: str
    retry_after_seconds: float | None = None


class _TryAgainError(Exception):
    """The sink did not take a request for a reason that may pass."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} {answer.text}")
        self.pause_seconds = min(answer.retry_after_seconds or 0.0, _LONGEST_PAUSE_SECONDS)


def upstream(sink: str, lane: int) -> str:
    """What the breaker of one lane's requests to one sink calls it."""
    return f"sink {sink}, lane {lane}"


class Attempts:
    """One lane's requests to one sink: with growing, jittered pauses, and a breaker that gives it rests."""

    def __init__(self, sink: str, lane: int, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock
        self._breaker = Breaker(upstream(sink, lane), reset_seconds=2.0, least_calls=10)

    async def refusal(self, send: Send, probes: Sequence[Send]) -> Answer | None:
        """None once the request is accepted; else the answer that refuses it although the sink takes others, such as
        one of the probes."""
        suspected = False
        while (refusal := await self.first_refusal(send)) is not None:
            if not await self._takes_any(probes):
                log.error("sink refuses everything", sink=self._sink, status=refusal.status, text=refusal.text)
                await self._clock.sleep(_SLOWEST_RETRY_SECONDS)
            elif suspected:
                return refusal
            else:
                suspected = True  # the sink may have come back just now: it must be seen once more
        return None

    async def _takes_any(self, probes: Sequence[Send]) -> bool:
        for probe in probes:
            if await self.first_refusal(probe) is None:
                return True
        return False

    async def first_refusal(self, send: Send) -> Answer | None:
        """None once the request is accepted, or the answer that refuses it, and maybe everything: a 4xx or a 500. Tries
        until there is either."""
        refusal: Answer | None = None
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type((_TryAgainError, Unavailable)),
            wait=_pause,
            sleep=self._clock.sleep,
            stop=tenacity.stop_never,
        ):
            with attempt, self._breaker.guarded():
                answer = await send()
                metrics.SINK_REQUESTS.labels(self._sink, str(answer.status or answer.text)).inc()
                if not 200 <= answer.status < 300:
                    if not 400 <= answer.status <= 500 or answer.status == 429:
                        raise _TryAgainError(answer)
                    refusal = answer
        return refusal


_backoff = tenacity.wait_random_exponential(multiplier=0.1, max=_SLOWEST_RETRY_SECONDS)


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next attempt: jittered and growing, or what the sink asks for."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.pause_seconds if isinstance(error, _TryAgainError) else 0.0
    return max(asked, _backoff(state))
