"""Whether publishable keys have brought a project very many producers or sources since these were counted. No I/O."""

import uuid
from collections.abc import Iterable

from chassis import logs
from chassis.clock import Clock

log = logs.get(__name__)

#: As often as aggregators count what the state has (`housekeeping`).
_SECONDS = 600.0
#: One in so many is remembered, by a hash that no client can tell, and stands for as many: they cost next to nothing.
_ONE_IN = 256


class Newcomers:
    """The ids that were seen of each project in the last ten minutes at most, whether or not the state knows them."""

    def __init__(self, what: str, most: int, clock: Clock) -> None:
        """`what`: whose ids these are, for the log. `most`: so many are very many, give or take a tenth."""
        self._what = what
        self._most = most // _ONE_IN
        self._clock = clock
        self._began = clock.monotonic()
        self._seen: dict[bytes, set[bytes]] = {}

    def note(self, project_id: bytes, identities: Iterable[bytes]) -> None:
        """Takes in what a batch of a publishable key brings; what was seen before does not count again."""
        remembered = [identity for identity in identities if hash(identity) % _ONE_IN == 0]
        if remembered and not self.are_many(project_id):
            self._seen.setdefault(project_id, set()).update(remembered)
            if self.are_many(project_id):
                project = str(uuid.UUID(bytes=project_id))
                log.warning("publishable keys bring more than is taken", what=self._what, project_id=project)

    def are_many(self, project_id: bytes) -> bool:
        """Whether the project's are: what the state does not know is too much then."""
        if self._clock.monotonic() - self._began >= _SECONDS:
            self._began = self._clock.monotonic()
            self._seen.clear()
        return len(self._seen.get(project_id, ())) >= self._most
