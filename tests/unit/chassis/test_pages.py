"""Pages of lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis import pages
from chassis.errors import Invalid
from chassis.ids import uuid7


def test_a_page_holds_50_unless_said_otherwise() -> None:
    assert [pages.page_size(requested) for requested in (0, 1, 500)] == [50, 1, 500]


@pytest.mark.parametrize("requested", [-1, 501])
def test_a_page_holds_at_most_500(requested: int) -> None:
    with pytest.raises(Invalid) as caught:
        pages.page_size(requested)
    assert caught.value.details == {"fields": {"pageSize": "must be from 1 to 500"}}


@given(st.uuids())
def test_a_token_leads_back_to_its_id(last: object) -> None:
    assert pages.id_before(pages.token_after(str(last))) == str(last)


def test_without_a_token_the_first_page_is_asked_for() -> None:
    assert pages.id_before("") < str(uuid7())


@given(st.text(min_size=1))
def test_no_made_up_token_is_taken(token: str) -> None:
    with pytest.raises(Invalid):
        pages.id_before(token)
