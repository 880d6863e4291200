"""`python -m tests.late_aggregator`: an aggregator on a machine whose clock is two seconds behind."""

from functools import partial

from chassis import runner
from chassis.clock import SystemClock
from services.ingest import app
from services.ingest.settings import AggregatorSettings


class LateClock(SystemClock):
    """A machine's clock that is two seconds behind."""

    def now_ms(self) -> int:
        return super().now_ms() - 2000


if __name__ == "__main__":
    runner.run("ingest-aggregator", AggregatorSettings, partial(app.aggregator, clock=LateClock()))
