"""What a Pushgateway is given, and in which order: jobs without bound take no requests without bound."""

from services.ingest.sinks.attempts import Answer
from services.ingest.sinks.pushgateway import GroupKey, Pushgateway
from tests.moved_clock import MovedClock
from tests.unit.ingest.ingestion import NOW_MS, definition
from tests.unit.ingest.lane_store import Rows

RUNS = definition("runs_total")


class RecordingGateway(Pushgateway):
    """Accepts everything."""

    def __init__(self) -> None:
        super().__init__(None, lambda: "", name="gate")  # type: ignore[arg-type]  # nothing is sent
        self.pushed: list[tuple[str, str, str]] = []

    async def push(self, method: str, key: GroupKey | None, text: str = "") -> Answer:
        assert key is not None, "nobody asks whether it works"
        self.pushed.append((method, key.job, text))
        return Answer(200, "")


async def test_a_hundred_jobs_of_a_project_have_groups_of_their_own_and_what_changed_goes_first() -> None:
    series, gateway, clock = Rows(), RecordingGateway(), MovedClock(NOW_MS / 1000)
    writer = gateway.writer(0, clock)
    rows = {f"j{number:03}": series.of(RUNS, job=f"j{number:03}") for number in range(1000)}
    await writer.write(series.joined(*(series.sample(row, NOW_MS, 1.0) for row in rows.values())))
    first = [(method, job) for method, job, _ in gateway.pushed]
    jobs = {job for method, job in first if method == "PUT"}
    assert len(jobs) == 101
    assert "pulsegate" in jobs
    shared = next(text for method, job, text in gateway.pushed if (method, job) == ("PUT", "pulsegate"))
    assert shared.count("exported_job=") == 900
    own = max(jobs - {"pulsegate"})
    del gateway.pushed[:]
    await clock.sleep(120.0)
    await writer.write(series.sample(rows[own], NOW_MS, 2.0))
    assert next(job for _, job, _ in gateway.pushed) == own
    assert {method for method, *_ in gateway.pushed} == {"PUT"}
    assert len(gateway.pushed) == 101


async def test_a_label_of_the_series_that_has_the_name_stays() -> None:
    series, gateway = Rows(), RecordingGateway()
    writer = gateway.writer(0, MovedClock(NOW_MS / 1000))
    before = [series.sample(series.of(RUNS, job=f"j{number}"), NOW_MS, 1.0) for number in range(100)]
    await writer.write(series.joined(*before))
    await writer.write(series.sample(series.of(RUNS, job="late", exported_job="kept"), NOW_MS, 1.0))
    shared = [text for _, job, text in gateway.pushed if job == "pulsegate"]
    assert shared == ['# TYPE runs_total counter\nruns_total{exported_exported_job="late",exported_job="kept"} 1.0\n']
