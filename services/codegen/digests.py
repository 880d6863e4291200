"""Which definitions projects have at the moment, by their digest."""

from collections import OrderedDict
from itertools import count

from services.codegen.clients import ConfigClient

#: Who asked before the oldest one was seen has waited for longer than anybody does.
_MOST_KEPT = 1_000


class Digests:
    """What config says of projects. One answer does for all who asked before it was fetched, and for nobody later."""

    def __init__(self, config: ConfigClient) -> None:
        self._config = config
        self._numbers = count()
        #: By project, the number at which the last answer began to be fetched, and what it was.
        self._last: OrderedDict[str, tuple[int, str]] = OrderedDict()

    def asked_at(self) -> int:
        """The number of what is asked now."""
        return next(self._numbers)

    async def since(self, asked_at: int, project_id: str) -> str:
        """The digest of the project's definitions as of then or later."""
        began_at, digest = self._last.get(project_id, (-1, ""))
        if began_at < asked_at:
            began_at = next(self._numbers)
            digest = (await self._config.definitions(project_id)).digest
            self._last[project_id] = began_at, digest
            self._last.move_to_end(project_id)
            if len(self._last) > _MOST_KEPT:
                self._last.popitem(last=False)
        return digest
