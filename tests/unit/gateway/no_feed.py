"""Messages of the feed of definitions that a test applies by hand."""

from collections.abc import AsyncIterator

from services.gateway.definition_revisions import DefinitionsChanged


class NoFeed:
    async def newest_revision(self) -> int:
        raise AssertionError("messages are applied by hand")

    def watch(self, after_revision: int) -> AsyncIterator[DefinitionsChanged]:
        raise AssertionError("messages are applied by hand")


async def itself(newest: int) -> int:
    return newest


def told(revision: int, *projects: str, snapshot: bool = False) -> DefinitionsChanged:
    return DefinitionsChanged(revision=revision, project_ids=frozenset(projects), snapshot=snapshot)
