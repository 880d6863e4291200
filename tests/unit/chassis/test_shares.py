"""What many share, and each may have a part of only."""

import asyncio
from collections.abc import Iterable, Sequence

import pytest

from chassis.shares import Holdings, Shares, Turns


def as_many_as_they_may(shares: Shares, holder: str) -> int:
    taken = 0
    while shares.take([holder]):
        taken += 1
    return taken


def test_nobody_gets_more_than_there_is_and_no_holder_more_than_a_quarter() -> None:
    shares = Shares(100)
    assert shares.take(["a", "b"], 20)
    assert not shares.take(["a"], 6)
    assert not shares.take(["c", "b"], 6)
    assert shares.take(["a"], 5)
    assert shares.take([], 75)
    assert not shares.take(["c"])
    shares.give_back([], 75)
    shares.give_back(["a", "b"], 20)
    assert not shares.take(["b"], 23), "a has some"
    assert shares.take(["b"], 22)
    assert shares.taken == 27


def test_where_one_alone_may_have_half_something_is_left_for_others_too() -> None:
    shares = Shares(256, parts=2)
    taken = [as_many_as_they_may(shares, f"holder {number}") for number in range(10)]
    assert (taken[0], 256 - sum(taken[:4])) == (128, 67)
    assert as_many_as_they_may(shares, "the next") > 0


@pytest.mark.parametrize("most", [64, 256, 128 << 10])
def test_when_ten_have_all_that_they_may_something_is_left_for_the_next(most: int) -> None:
    shares = Shares(most)
    taken = [as_many_as_they_may(shares, f"holder {number}") for number in range(10)]
    assert taken[0] == most // 4
    assert taken == sorted(taken, reverse=True)
    assert sum(taken) < 0.75 * most
    assert as_many_as_they_may(shares, "the next") >= most // 64


def test_who_has_little_gets_the_least_for_as_long_as_there_is_as_much() -> None:
    shares = Shares(8, least=2)
    assert [as_many_as_they_may(shares, holder) for holder in "abcde"] == [2, 2, 2, 2, 0]
    shares.give_back(["a"], 2)
    assert as_many_as_they_may(shares, "e") == 2


@pytest.mark.parametrize(
    ("most", "least", "parts", "so_many"),
    [(256, 2, 4, 40), (128 << 10, 1 << 10, 4, 40), (64, 1, 4, 29), (8 << 10, 128, 2, 19)],
)
def test_so_many_have_something_and_fifty_leave_nothing_until_one_gives_it_back(
    most: int, least: int, parts: int, so_many: int
) -> None:
    shares = Shares(most, least=least, parts=parts)
    taken = [as_many_as_they_may(shares, f"holder {number}") for number in range(50)]
    assert all(taken[:so_many])
    assert taken[so_many + 1 :] == [0] * (49 - so_many)
    assert shares.taken == most
    shares.give_back(["holder 0"], least)
    assert as_many_as_they_may(shares, "the next") == least


def test_what_is_given_back_is_there_again_and_leaves_nothing_behind() -> None:
    shares = Shares(16)
    for holder in map(str, range(100)):
        assert as_many_as_they_may(shares, holder) == 4
        shares.give_back([holder], 4)
    assert shares.taken == 0
    assert not shares._taken_by


def those_who_go(holdings: Holdings[str], owner_of: dict[str, str], most: int) -> list[str]:
    """What is removed until no more than so much is left."""
    gone = []
    while holdings.size > most:
        gone.append(holdings.first_to_go())
        holdings.remove(owner_of[gone[-1]], gone[-1])
    return gone


def test_what_goes_first_is_the_oldest_of_who_has_most() -> None:
    holdings, owner_of = Holdings[str](), dict[str, str]()
    for holder, size in [("a", 1), ("b", 10), ("a", 1), ("b", 10), ("c", 9), ("b", 10)]:
        name = f"{holder}{len(owner_of)}"
        owner_of[name] = holder
        holdings.add(holder, name, size)
    assert those_who_go(holdings, owner_of, 21) == ["b1", "b3"]
    assert holdings.size == 21
    assert those_who_go(holdings, owner_of, 2) == ["b5", "c4"]
    assert those_who_go(holdings, owner_of, 0) == ["a0", "a2"]
    assert not [*holdings._theirs, *holdings._sizes, *filter(None, holdings._by_bits.values())]


def test_of_two_who_have_about_as_much_the_one_loses_its_own_who_comes_with_more() -> None:
    holdings, owner_of = Holdings[str](), dict[str, str]()
    for number in range(120):
        name = f"{number}"
        owner_of[name] = "a" if number < 60 else "b"
        holdings.add(owner_of[name], name, 1)
    for number in range(120, 200):
        owner_of[f"{number}"] = "b"
        holdings.add("b", f"{number}", 1)
        assert those_who_go(holdings, owner_of, 120) == [f"{number - 60}"]


@pytest.mark.parametrize("hoarders", [1, 10, 100])
def test_however_many_take_all_they_can_who_has_little_keeps_it(hoarders: int) -> None:
    holdings, owner_of = Holdings[str](), {f"mine {number}": "me" for number in range(3)}
    for name in owner_of:
        holdings.add("me", name, 1)
    for number in range(5000):
        owner_of[f"{number}"] = f"hoarder {number % hoarders}"
        holdings.add(owner_of[f"{number}"], f"{number}", 1)
        assert not [name for name in those_who_go(holdings, owner_of, 1000) if owner_of[name] == "me"]


async def order_of(turns: Turns, wanted: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    """Whose turns begin one after the other, when those that begin at once end after the last one has asked."""
    begun, go = list[Sequence[str]](), asyncio.Event()

    async def ask(holders: Sequence[str]) -> None:
        async with turns.one(holders):
            begun.append(holders)
            await go.wait()

    asking = [asyncio.create_task(ask(holders)) for holders in wanted]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*asking)
    return begun


@pytest.mark.parametrize(("most", "least"), [(2, 1), (4, 2)])
async def test_who_asks_once_waits_for_no_more_than_a_turn_of_each_who_waits_for_many(most: int, least: int) -> None:
    turns = Turns(most, least=least)
    order = await order_of(turns, [*(["a"] * (20 + least)), *(["c"] * (20 + least)), "b"])
    assert "b" not in order[:most]
    assert order[most:].index("b") < 4
    assert not [*turns._waiting, *turns._last, *turns._shares._taken_by]


async def test_those_who_wait_have_turns_one_after_the_other_and_each_of_them_in_the_order_they_asked() -> None:
    assert await order_of(Turns(1), "aaacbb") == list("acbaba")


async def test_however_many_people_a_tenant_has_they_wait_for_the_turns_of_one() -> None:
    people = [(f"person {number}", "tenant") for number in range(10)]
    order = await order_of(Turns(1), [people[0], people[0], *people, ("other",), ("other",)])
    assert [place for place, holders in enumerate(order) if holders == ("other",)] == [1, 3]
    assert order[-1] == people[0], "has had two turns"


async def test_a_tenants_key_and_its_people_have_turns_alternately_whatever_each_waits_for() -> None:
    key, person = ("tenant",), ("person", "tenant")
    assert await order_of(Turns(1), [*([key] * 5), person]) == [key, person, key, key, key, key]
    assert await order_of(Turns(1), [*([person] * 5), key]) == [person, key, person, person, person, person]
