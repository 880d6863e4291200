"""How many failed sign-ons a tenant is told: anybody may begin one, so a flood must not fill its audit log."""

from dataclasses import dataclass

from chassis.clock import Clock
from services.auth import metrics
from services.auth.identity_providers import ProviderId

MOST_TOLD = 60
WINDOW_SECONDS = 3600.0


@dataclass
class _Window:
    """What failed at one provider within an hour."""

    began: float
    told: int = 0
    #: Of this window, and of the one before until it is told.
    withheld: int = 0


class FailedSignOns:
    """Counts by provider, of which tenants have few, in this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: dict[ProviderId, _Window] = {}

    def told(self, provider_id: ProviderId) -> int | None:
        """How many before this one were not told, where this one is to be told; None where it is not."""
        window = self._window(provider_id)
        if window.told >= MOST_TOLD:
            window.withheld += 1
            metrics.SIGN_ON_FAILURES_WITHHELD.inc()
            return None
        window.told += 1
        before, window.withheld = window.withheld, 0
        return before

    def _window(self, provider_id: ProviderId) -> _Window:
        now = self._clock.monotonic()
        window = self._windows.get(provider_id)
        if window is None or now - window.began >= WINDOW_SECONDS:
            window = _Window(began=now, withheld=window.withheld if window else 0)
            self._windows[provider_id] = window
        return window
