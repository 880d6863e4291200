"""The clients in memory: bounded in bytes and in time, one project's never another's."""

import hashlib

from services.codegen.domain import Artifact
from services.codegen.recent import RecentArtifacts


class StoppedClock:
    """Goes on when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def _artifact(size: int) -> Artifact:
    content = b"x" * size
    return Artifact(content=content, content_type="", file_name="", sha256=hashlib.sha256(content).hexdigest())


def test_the_least_recently_used_goes_when_the_bytes_are_spent() -> None:
    recent = RecentArtifacts(StoppedClock(), most_bytes=100)
    recent.put("p", "one", _artifact(40))
    recent.put("p", "two", _artifact(40))
    assert recent.get("p", "one")
    recent.put("p", "three", _artifact(40))
    assert [name for name in ("one", "two", "three") if recent.get("p", name)] == ["one", "three"]


def test_what_is_put_again_counts_once() -> None:
    recent = RecentArtifacts(StoppedClock(), most_bytes=100)
    for _ in range(5):
        recent.put("p", "one", _artifact(60))
    recent.put("p", "two", _artifact(40))
    assert recent.get("p", "one")
    assert recent.get("p", "two")


def test_what_is_larger_than_everything_together_is_not_kept() -> None:
    recent = RecentArtifacts(StoppedClock(), most_bytes=100)
    recent.put("p", "one", _artifact(101))
    assert recent.get("p", "one") is None
    recent.put("p", "two", _artifact(100))
    assert recent.get("p", "two")


def test_after_an_hour_it_is_looked_up_again() -> None:
    clock = StoppedClock()
    recent = RecentArtifacts(clock)
    recent.put("p", "one", _artifact(1))
    clock.seconds += 3600
    assert recent.get("p", "one")
    clock.seconds += 1
    assert recent.get("p", "one") is None


def test_a_project_does_not_see_what_another_has() -> None:
    recent = RecentArtifacts(StoppedClock())
    recent.put("p", "one", _artifact(1))
    assert recent.get("q", "one") is None
