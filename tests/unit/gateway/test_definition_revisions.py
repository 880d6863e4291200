"""What the feed of definitions lets count of what was read before."""

from services.gateway.definition_revisions import DefinitionRevisions
from tests.moved_clock import MovedClock
from tests.unit.gateway.no_feed import NoFeed, itself, told

SHOP, OTHER = "shop", "other"


def test_what_was_read_before_a_change_of_its_project_counts_no_more() -> None:
    revisions = DefinitionRevisions(NoFeed(), MovedClock(), itself)
    revisions.apply(told(5))
    assert revisions.is_current(SHOP, 5)
    revisions.apply(told(6, SHOP))
    assert not revisions.is_current(SHOP, 5)
    assert revisions.is_current(SHOP, 6)
    assert revisions.is_current(OTHER, 5)
    assert not revisions.is_current(OTHER, 7)  # another gateway is ahead, or the database was put back


def test_nothing_counts_while_the_feed_is_silent_and_until_it_has_told_all() -> None:
    clock = MovedClock()
    revisions = DefinitionRevisions(NoFeed(), clock, itself)
    revisions.apply(told(5, SHOP))
    assert revisions.revision is None
    revisions.apply(told(5))
    clock.seconds += 0.8
    assert revisions.revision is None
    revisions.apply(told(6, OTHER))  # the first page of what was missed
    assert not revisions.is_current(SHOP, 5)
    revisions.apply(told(6))
    assert revisions.is_current(SHOP, 5)


def test_after_a_snapshot_or_a_database_that_was_put_back_nothing_from_before_counts() -> None:
    revisions = DefinitionRevisions(NoFeed(), MovedClock(), itself)
    for forgetting in (told(9, SHOP, snapshot=True), told(3)):
        revisions.apply(told(5))
        revisions.apply(forgetting)
        revisions.apply(told(forgetting.revision))
        assert not revisions.is_current(OTHER, forgetting.revision - 1)
        assert revisions.is_current(OTHER, forgetting.revision)
