"""The table of definitions: following the feed, and asking before anything is rejected."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from chassis import context
from chassis.clock import SystemClock
from chassis.errors import DeadlineExceeded, Internal, PulsegateError, Unavailable
from services.ingest.clients import DefinitionChange, DefinitionUpdate, ProjectDefinitions
from services.ingest.definitions import DefinitionTable
from services.ingest.domain import Definition
from tests.unit.ingest.ingestion import PROJECT, definition, renamed
from tests.waiting import eventually

ORDERS, VISITS = definition("orders_total"), definition("visits_total")


class ScriptedConfig:
    """A feed that tells what the test puts into it, and answers about the project as the test says."""

    def __init__(self) -> None:
        self.feed: asyncio.Queue[DefinitionUpdate | PulsegateError] = asyncio.Queue()
        self.watched_after: list[int] = []
        #: All definitions at a revision, or what else is answered.
        self.answer: tuple[int, Sequence[Definition]] | ProjectDefinitions | PulsegateError = (0, [])
        self.open = asyncio.Event()
        self.open.set()
        self.asked_after: list[int] = []
        self.seconds_left: list[float] = []

    async def watch(self, after_revision: int) -> AsyncIterator[DefinitionUpdate]:
        self.watched_after.append(after_revision)
        while True:
            update = await self.feed.get()
            if isinstance(update, PulsegateError):
                raise update
            yield update

    @property
    def questions(self) -> int:
        return len(self.asked_after)

    async def read_project(self, project_id: bytes, after_revision: int) -> ProjectDefinitions:
        assert project_id == PROJECT
        self.asked_after.append(after_revision)
        self.seconds_left.append(context.remaining_seconds(2.0))
        answer = self.answer
        await self.open.wait()
        if isinstance(answer, PulsegateError):
            raise answer
        if isinstance(answer, ProjectDefinitions):
            return answer
        revision, definitions = answer
        return ProjectDefinitions(revision=revision, changes=[living(each) for each in definitions], snapshot=True)

    def tell(self, revision: int, *changes: DefinitionChange, snapshot: bool = False, more: bool = False) -> None:
        """`more`: of the snapshot comes."""
        complete = snapshot and not more
        self.feed.put_nowait(
            DefinitionUpdate(revision=revision, changes=changes, snapshot=snapshot, snapshot_complete=complete)
        )


def living(of: Definition) -> DefinitionChange:
    return DefinitionChange(of, deleted=False)


def deleted(of: Definition) -> DefinitionChange:
    return DefinitionChange(of, deleted=True)


class KeptEndings:
    """The deletions that were passed on."""

    def __init__(self) -> None:
        self.told: list[tuple[bytes, bool]] = []
        self.full = False
        self._room = asyncio.Event()

    def add(self, definition: Definition, *, fresh: bool) -> None:
        self.told.append((definition.id, fresh))

    async def room(self) -> None:
        if self.full:
            await self._room.wait()

    def make_room(self) -> None:
        self.full = False
        self._room.set()


class Following:
    """A table that follows a scripted config."""

    def __init__(self) -> None:
        self.config = ScriptedConfig()
        self.endings = KeptEndings()
        self.table = DefinitionTable(self.config, SystemClock(), self.endings)

    @property
    def ended(self) -> list[bytes]:
        return [definition_id for definition_id, _ in self.endings.told]

    def names(self) -> dict[str, bytes]:
        known = self.table.of_project(PROJECT)
        return {name: compiled.definition.id for name, compiled in known.items()}

    async def told(self) -> None:
        """Waits until the table has read all that the feed told."""
        await eventually(lambda: asyncio.sleep(0, self.config.feed.empty()))
        await asyncio.sleep(0)


@pytest.fixture
async def following() -> AsyncIterator[Following]:
    made = Following()
    async with _running(made):
        yield made


@asynccontextmanager
async def _running(made: Following) -> AsyncIterator[None]:
    task = asyncio.create_task(made.table.follow())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_before_the_first_snapshot_nothing_can_be_said(following: Following) -> None:
    assert not following.table.loaded
    with pytest.raises(Unavailable):
        following.names()


async def test_a_snapshot_then_changes_in_order(following: Following) -> None:
    following.config.tell(5, living(ORDERS), snapshot=True)
    following.config.tell(6, living(VISITS))
    following.config.tell(7, deleted(ORDERS))
    await following.told()
    assert following.names() == {"visits_total": VISITS.id}
    assert following.ended == [ORDERS.id]


async def test_the_end_of_an_old_definition_leaves_its_namesake_alone(following: Following) -> None:
    anew = renamed(ORDERS, b"n" * 16)
    following.config.tell(5, living(ORDERS), snapshot=True)
    following.config.tell(7, living(anew), deleted(ORDERS))
    await following.told()
    assert following.names() == {"orders_total": anew.id}
    assert following.ended == [ORDERS.id]


async def test_a_feed_that_breaks_off_is_resumed_where_it_was(following: Following) -> None:
    following.config.tell(5, living(ORDERS), snapshot=True)
    following.config.feed.put_nowait(Unavailable("config is away."))
    following.config.tell(8, living(VISITS))
    await eventually(lambda: asyncio.sleep(0, len(following.config.watched_after) == 2))
    await following.told()
    assert following.config.watched_after == [0, 5]
    assert set(following.names()) == {"orders_total", "visits_total"}


async def test_what_a_new_snapshot_lacks_has_ended(following: Following) -> None:
    following.config.tell(5, living(ORDERS), living(VISITS), snapshot=True)
    following.config.tell(9, living(VISITS), snapshot=True)
    await following.told()
    assert set(following.names()) == {"visits_total"}
    assert following.ended == [ORDERS.id]


async def test_a_snapshots_deletions_are_passed_on_page_by_page_and_are_not_fresh(following: Following) -> None:
    following.config.tell(3, living(VISITS), deleted(ORDERS), snapshot=True, more=True)
    await following.told()
    assert (following.table.loaded, following.endings.told) == (False, [(ORDERS.id, False)])
    following.config.tell(5, deleted(renamed(ORDERS, b"n" * 16)), snapshot=True)
    await following.told()
    assert set(following.names()) == {"visits_total"}
    assert following.endings.told == [(ORDERS.id, False), (b"n" * 16, False)]


async def test_a_deletion_that_a_snapshot_tells_anew_holds_at_once_and_is_fresh(following: Following) -> None:
    following.config.tell(5, living(ORDERS), living(VISITS), snapshot=True)
    following.config.tell(8, deleted(ORDERS), snapshot=True, more=True)
    await following.told()
    assert (set(following.names()), following.endings.told) == ({"visits_total"}, [(ORDERS.id, True)])
    following.config.tell(9, living(VISITS), snapshot=True)
    await following.told()
    assert (set(following.names()), following.ended) == ({"visits_total"}, [ORDERS.id])


async def test_what_is_deleted_while_a_snapshot_comes_is_not_in_it_and_its_namesake_is(following: Following) -> None:
    anew = renamed(VISITS, b"n" * 16)
    following.config.tell(3, living(ORDERS), living(VISITS), snapshot=True, more=True)
    following.config.tell(6, deleted(ORDERS), living(anew), deleted(VISITS), snapshot=True)
    await following.told()
    assert following.names() == {"visits_total": anew.id}
    assert following.endings.told == [(ORDERS.id, False), (VISITS.id, False)]


async def test_nothing_more_is_read_and_nothing_confirmed_while_too_many_deletions_wait(following: Following) -> None:
    following.endings.full = True
    following.config.tell(3, deleted(ORDERS), snapshot=True, more=True)
    following.config.tell(5, living(VISITS), snapshot=True)
    await eventually(lambda: asyncio.sleep(0, bool(following.ended)))
    await asyncio.sleep(0)
    assert (following.config.feed.qsize(), following.table.loaded) == (1, False)
    with pytest.raises(Unavailable, match="deletions"):
        await following.table.confirm(PROJECT)
    assert following.config.questions == 0
    following.endings.make_room()
    await following.told()
    assert set(following.names()) == {"visits_total"}


async def test_a_confirmation_knows_more_than_the_feed_and_the_feed_does_not_undo_it(following: Following) -> None:
    following.config.tell(5, living(ORDERS), snapshot=True)
    await following.told()
    newer = replace(VISITS, version=2)
    following.config.answer = (7, [newer])
    await following.table.confirm(PROJECT)
    assert (set(following.names()), following.ended) == ({"visits_total"}, [ORDERS.id])
    following.config.tell(6, living(VISITS), living(ORDERS))
    await following.told()
    assert following.table.of_project(PROJECT)["visits_total"].definition.version == 2
    assert set(following.names()) == {"visits_total"}
    following.config.tell(8, living(ORDERS))
    await following.told()
    assert set(following.names()) == {"orders_total", "visits_total"}


async def test_definitions_that_were_handed_out_stay_as_they_are(following: Following) -> None:
    """No record has two versions of a definition, whatever the feed says between the steps in which it is made."""
    following.config.tell(5, living(ORDERS), snapshot=True)
    await following.told()
    before, orders = following.table.of_project(PROJECT), following.table.of_project(PROJECT)["orders_total"]
    following.config.tell(6, living(replace(ORDERS, version=2)), living(VISITS))
    await following.told()
    between = following.table.of_project(PROJECT)
    following.config.tell(7, deleted(ORDERS))
    await following.told()
    assert before == {"orders_total": orders}
    assert {name: each.definition.version for name, each in between.items()} == {"orders_total": 2, "visits_total": 1}
    assert set(following.names()) == {"visits_total"}


async def test_an_answer_older_than_the_feed_changes_nothing(following: Following) -> None:
    following.config.tell(5, living(ORDERS), snapshot=True)
    await following.told()
    following.config.answer = (4, [])
    await following.table.confirm(PROJECT)
    assert (set(following.names()), following.ended) == ({"orders_total"}, [])


async def test_a_question_is_for_what_changed_after_the_revision_that_the_table_has(following: Following) -> None:
    following.config.tell(5, living(ORDERS), snapshot=True)
    await following.told()
    orders = following.table.of_project(PROJECT)["orders_total"]
    following.config.answer = ProjectDefinitions(revision=8, changes=[living(VISITS)], snapshot=False)
    await following.table.confirm(PROJECT)
    assert set(following.names()) == {"orders_total", "visits_total"}
    assert following.table.of_project(PROJECT)["orders_total"] is orders
    following.config.answer = ProjectDefinitions(revision=9, changes=[deleted(ORDERS)], snapshot=False)
    await following.table.confirm(PROJECT)
    assert (set(following.names()), following.ended) == ({"visits_total"}, [ORDERS.id])
    following.config.answer = ProjectDefinitions(revision=12, changes=[], snapshot=False)
    await following.table.confirm(PROJECT)
    assert set(following.names()) == {"visits_total"}
    following.config.tell(15)
    await following.told()
    await following.table.confirm(PROJECT)
    assert following.config.asked_after == [5, 8, 9, 15]


async def test_changes_that_the_feed_has_told_while_they_were_asked_for_are_not_undone(following: Following) -> None:
    following.config.tell(5, living(ORDERS), snapshot=True)
    await following.told()
    following.config.answer = ProjectDefinitions(revision=6, changes=[living(VISITS)], snapshot=False)
    following.config.open.clear()
    asked = asyncio.create_task(following.table.confirm(PROJECT))
    await eventually(lambda: asyncio.sleep(0, following.config.questions == 1))
    following.config.tell(7, living(VISITS))
    following.config.tell(8, deleted(VISITS))
    await following.told()
    following.config.open.set()
    await asked
    assert set(following.names()) == {"orders_total"}


async def test_changes_to_a_table_that_went_back_while_they_were_asked_for_leave_no_gap(following: Following) -> None:
    following.config.tell(5, snapshot=True)
    await following.told()
    following.config.answer = (10, [ORDERS])
    await following.table.confirm(PROJECT)
    following.config.answer = ProjectDefinitions(revision=12, changes=[living(VISITS)], snapshot=False)
    following.config.open.clear()
    asked = asyncio.create_task(following.table.confirm(PROJECT))
    await eventually(lambda: asyncio.sleep(0, following.config.questions == 2))
    following.config.tell(6, snapshot=True)
    await following.told()
    assert following.ended == [], "it may be older than the definition that was confirmed"
    following.config.answer = (12, [ORDERS, VISITS])
    following.config.open.set()
    await asked
    following.config.tell(8, living(ORDERS))
    await following.told()
    assert set(following.names()) == {"orders_total", "visits_total"}
    assert following.config.asked_after == [5, 10, 0]


async def test_what_was_confirmed_has_ended_where_a_snapshot_shows_that_all_went_back(following: Following) -> None:
    following.config.tell(5, snapshot=True)
    await following.told()
    following.config.answer = (10, [ORDERS])
    await following.table.confirm(PROJECT)
    following.config.tell(4, snapshot=True)
    await following.told()
    assert (following.names(), following.ended) == ({}, [ORDERS.id])


async def test_many_callers_share_a_question_that_is_asked_after_they_came(following: Following) -> None:
    following.config.tell(1, snapshot=True)
    await following.told()
    following.config.open.clear()
    first = asyncio.create_task(following.table.confirm(PROJECT))
    await eventually(lambda: asyncio.sleep(0, following.config.questions == 1))
    following.config.answer = (2, [ORDERS])  # made after the first question was asked
    later = [asyncio.create_task(following.table.confirm(PROJECT)) for _ in range(50)]
    await asyncio.sleep(0)
    following.config.open.set()
    await asyncio.gather(first, *later)
    assert following.config.questions == 2
    assert set(following.names()) == {"orders_total"}


async def test_no_question_outlives_the_table(following: Following) -> None:
    before = asyncio.all_tasks()
    async with _running(following):
        following.config.tell(1, snapshot=True)
        await following.told()
        following.config.open.clear()
        for _ in range(2):  # one that is asked, one that waits for it
            asked = asyncio.create_task(following.table.confirm(PROJECT))
            await eventually(lambda: asyncio.sleep(0, following.config.questions == 1))
            asked.cancel()  # its deadline is over, the question goes on
            await asyncio.wait([asked])
        assert len(asyncio.all_tasks() - before) == 3
    assert asyncio.all_tasks() == before


async def test_a_question_is_not_bound_by_the_deadline_of_whoever_came_first(following: Following) -> None:
    following.config.tell(1, snapshot=True)
    await following.told()
    token = context.DEADLINE.set(0.0)
    try:
        await following.table.confirm(PROJECT)
    finally:
        context.DEADLINE.reset(token)
    assert following.config.seconds_left == [2.0]


@pytest.mark.parametrize("error", [Unavailable("away"), DeadlineExceeded("slow"), Internal("broken")])
async def test_without_an_answer_the_batch_is_to_be_sent_again(following: Following, error: PulsegateError) -> None:
    following.config.tell(1, living(ORDERS), snapshot=True)
    await following.told()
    following.config.answer = error
    with pytest.raises(Unavailable) as caught:
        await following.table.confirm(PROJECT)
    assert caught.value.retry_after_seconds == 1.0
    following.config.answer = (2, [VISITS])
    await following.table.confirm(PROJECT)
    assert set(following.names()) == {"visits_total"}


async def test_an_unchanged_definition_keeps_the_label_sets_it_knows(following: Following) -> None:
    following.config.tell(5, living(ORDERS), snapshot=True)
    await following.told()
    before = following.table.of_project(PROJECT)["orders_total"]
    following.config.tell(6, living(replace(ORDERS)))
    await following.told()
    assert following.table.of_project(PROJECT)["orders_total"] is before
