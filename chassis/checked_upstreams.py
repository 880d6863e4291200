"""Breakers towards other services, which hear of calls and of health checks alike."""

from collections.abc import Sequence

from chassis.breakers import Breaker
from chassis.errors import Unavailable
from chassis.grpc_client import ServiceChannel, Silent

#: Calls or health checks in a row without an answer, after which an upstream counts as one that hangs.
_MOST_SILENCES = 3
#: A call with less time than this says nothing about its upstream: its client took the time.
_PATIENCE_SECONDS = 1.0


def breaker_of(upstream: str, *, reset_seconds: float, timeout_seconds: float) -> Breaker:
    """The breaker towards an upstream whose calls may take `timeout_seconds`."""
    return Breaker(
        upstream,
        reset_seconds=reset_seconds,
        patience_seconds=min(_PATIENCE_SECONDS, timeout_seconds / 2),
        most_silences=_MOST_SILENCES,
    )


class Checked:
    """The health check of a process behind, which one or several breakers are told of."""

    def __init__(self, channel: ServiceChannel, breakers: Sequence[Breaker]) -> None:
        self._channel = channel
        self._breakers = breakers
        #: What the last check said.
        self._serves = True

    async def probe(self) -> None:
        """Raises Unavailable where it does not answer or does not serve, or where a breaker towards it is open."""
        try:
            await self._channel.probe()
        except Silent:
            for breaker in self._breakers:
                breaker.checked(answered=False)
            raise
        except Unavailable:
            self._serves = False
            raise
        for breaker in self._breakers:
            breaker.checked(answered=True)
            if not self._serves:  # what it needs is back, which calls had failed for
                breaker.try_again()
        self._serves = True
        refuse_while_open(self._breakers)

    def state(self) -> str:
        """Of the breaker that is the least well."""
        return max((breaker.state for breaker in self._breakers), key=_WORSE.index)


#: A breaker's states, from the best to the worst.
_WORSE = ("closed", "half-open", "open")


def refuse_while_open(breakers: Sequence[Breaker]) -> None:
    """For a health check that has passed. Raises Unavailable while a breaker is open."""
    if any(breaker.is_open for breaker in breakers):
        raise Unavailable("its circuit breaker is open")
