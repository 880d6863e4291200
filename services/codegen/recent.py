"""The clients generated or asked for most recently, in memory."""

from collections import OrderedDict

from chassis.clock import Clock
from services.codegen import metrics
from services.codegen.domain import Artifact

#: Past that an artifact is looked up in storage again, which notes that it is still used.
_FRESH_SECONDS = 3600.0


class RecentArtifacts:
    """Artifacts by project and hash (of their input or of their content), least recently used out first."""

    def __init__(self, clock: Clock, *, most_bytes: int = 32 << 20) -> None:
        self._clock = clock
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, str], tuple[float, Artifact]] = OrderedDict()

    def get(self, project_id: str, sha256: str) -> Artifact | None:
        """The artifact, where it was put here within the last hour."""
        at, artifact = self._kept.get((project_id, sha256), (0.0, None))
        if artifact is None:
            return None
        if self._clock.monotonic() - at > _FRESH_SECONDS:
            self._remove((project_id, sha256))
            return None
        self._kept.move_to_end((project_id, sha256))
        return artifact

    def put(self, project_id: str, sha256: str, artifact: Artifact) -> None:
        """Keeps the artifact; others go where there is no room."""
        self._remove((project_id, sha256))
        self._kept[project_id, sha256] = (self._clock.monotonic(), artifact)
        self._bytes += len(artifact.content)
        while self._bytes > self._most_bytes:
            self._remove(next(iter(self._kept)))
        metrics.RECENT_BYTES.set(self._bytes)

    def _remove(self, key: tuple[str, str]) -> None:
        _, artifact = self._kept.pop(key, (0.0, None))
        if artifact is not None:
            self._bytes -= len(artifact.content)
