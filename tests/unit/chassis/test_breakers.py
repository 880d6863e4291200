"""Circuit breakers: when they open, what they refuse, how they close again."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from chassis.breakers import Breaker, NotAsked, RollingWindow
from chassis.errors import (
    AnswerTooLarge,
    Conflict,
    DeadlineExceeded,
    Internal,
    Limited,
    NotFound,
    Unavailable,
    from_wire,
    to_wire,
)


@pytest.fixture
def breaker() -> Breaker:
    return Breaker("upstream", least_calls=4)


async def answer(breaker: Breaker) -> None:
    """A call that the upstream answers."""
    with breaker.guarded():
        await asyncio.sleep(0)


async def fail(breaker: Breaker, error: Exception | None = None) -> None:
    """A call that ends in this error."""
    error = error or Unavailable("away")
    with pytest.raises(type(error)), breaker.guarded():
        raise error


async def opened(breaker: Breaker) -> Breaker:
    for _ in range(4):
        await fail(breaker)
    assert breaker.is_open
    return breaker


async def refused(breaker: Breaker) -> Unavailable:
    """What a call is told that must not reach the upstream."""
    with pytest.raises(Unavailable) as caught, breaker.guarded():
        raise AssertionError("reached the upstream")
    return caught.value


async def test_it_opens_when_half_of_the_calls_fail(breaker: Breaker) -> None:
    await answer(breaker)
    await answer(breaker)
    await fail(breaker)
    assert breaker.state == "closed"
    await fail(breaker)
    assert breaker.state == "open"


async def test_it_stays_closed_while_fewer_than_half_fail(breaker: Breaker) -> None:
    for _ in range(20):
        for _ in range(2):
            await answer(breaker)
        await fail(breaker)
    assert breaker.state == "closed"


async def test_few_calls_say_nothing(breaker: Breaker) -> None:
    for _ in range(3):
        await fail(breaker)
    assert breaker.state == "closed"


async def test_while_open_calls_are_refused_at_once_with_the_time_to_wait(breaker: Breaker) -> None:
    await opened(breaker)
    error = await refused(breaker)
    assert (error.code, error.http_status) == ("SERVICE_UNAVAILABLE", 503)
    assert error.retry_after_seconds is not None
    assert 25 < error.retry_after_seconds <= 30


async def test_who_would_have_to_wait_is_refused_before(breaker: Breaker) -> None:
    breaker.check()
    await opened(breaker)
    with pytest.raises(NotAsked):
        breaker.check()
    breaker.try_again()
    breaker.check()
    await answer(breaker)  # the trial was left to the call itself
    assert breaker.state == "closed"


async def test_callers_own_mistakes_do_not_count(breaker: Breaker) -> None:
    for error in (NotFound("no"), Conflict("no"), Limited("no")):
        for _ in range(10):
            await fail(breaker, error)
    assert breaker.state == "closed"


async def test_what_an_upstream_lacks_for_some_calls_does_not_count(breaker: Breaker) -> None:
    for _ in range(10):
        await fail(breaker, from_wire(to_wire(Unavailable.waiting_for("config", "no", 1.0))))
    assert breaker.state == "closed"


async def test_an_answer_that_is_too_large_does_not_count(breaker: Breaker) -> None:
    for _ in range(5):
        await fail(breaker, AnswerTooLarge("no"))
        await fail(breaker, from_wire(to_wire(AnswerTooLarge("no"))))
    assert breaker.state == "closed"


@pytest.mark.parametrize("error", [Unavailable("x"), DeadlineExceeded("x"), Internal("x"), OSError("x")])
async def test_faults_of_the_upstream_count(breaker: Breaker, error: Exception) -> None:
    for _ in range(4):
        await fail(breaker, error)
    assert breaker.state == "open"


async def hang(breaker: Breaker, begun: asyncio.Event) -> None:
    with breaker.guarded():
        begun.set()
        await asyncio.Event().wait()


async def cancelled_call(breaker: Breaker) -> None:
    begun = asyncio.Event()
    call = asyncio.create_task(hang(breaker, begun))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_cancelled_calls_do_not_count(breaker: Breaker) -> None:
    for _ in range(10):
        await cancelled_call(breaker)
    for _ in range(3):
        await fail(breaker)
    assert breaker.state == "closed"


async def test_after_the_rest_one_success_closes_it(breaker: Breaker) -> None:
    (await opened(breaker)).try_again()
    assert breaker.state == "half-open"
    await answer(breaker)
    assert breaker.state == "closed"
    await fail(breaker)  # a new window: one failure is not half of many
    assert breaker.state == "closed"


async def test_the_rest_ends_by_itself() -> None:
    breaker = await opened(Breaker("upstream", least_calls=4, reset_seconds=0))
    await answer(breaker)
    assert breaker.state == "closed"


async def test_one_failed_trial_opens_it_again(breaker: Breaker) -> None:
    (await opened(breaker)).try_again()
    await fail(breaker)
    assert breaker.state == "open"
    await refused(breaker)


async def test_an_answer_that_refuses_is_an_answer(breaker: Breaker) -> None:
    (await opened(breaker)).try_again()
    await fail(breaker, NotFound("absent"))
    assert breaker.state == "closed"


async def test_one_call_alone_tries_a_half_open_breaker(breaker: Breaker) -> None:
    (await opened(breaker)).try_again()
    with breaker.guarded():
        for _ in range(3):
            assert (await refused(breaker)).retry_after_seconds is not None
    assert breaker.state == "closed"
    await answer(breaker)


async def test_a_cancelled_trial_proves_nothing_and_leaves_the_next_call_to_try(breaker: Breaker) -> None:
    (await opened(breaker)).try_again()
    await cancelled_call(breaker)
    assert breaker.state == "half-open"
    await answer(breaker)
    assert breaker.state == "closed"


async def test_calls_from_before_it_opened_neither_open_it_again_nor_close_it(breaker: Breaker) -> None:
    release = asyncio.Event()

    async def late(error: Exception | None) -> None:
        with breaker.guarded():
            await release.wait()
            if error:
                raise error

    stragglers = [asyncio.create_task(late(error)) for error in (None, Unavailable("late"), None)]
    await asyncio.sleep(0)
    await opened(breaker)
    openings = REGISTRY.get_sample_value("pulsegate_breaker_open", {"upstream": "upstream"})
    breaker.try_again()
    release.set()
    await asyncio.gather(*stragglers, return_exceptions=True)
    assert openings == 1
    assert breaker.state == "half-open"


async def test_its_state_is_a_metric(breaker: Breaker) -> None:
    def shown() -> float | None:
        return REGISTRY.get_sample_value("pulsegate_breaker_open", {"upstream": "upstream"})

    assert shown() == 0
    (await opened(breaker)).try_again()
    assert shown() == 0.5
    await fail(breaker)
    assert shown() == 1


@pytest.fixture
def impatient() -> Breaker:
    """A breaker that three silences open, whatever came before."""
    return Breaker("upstream", least_calls=100, most_silences=3)


async def test_calls_in_a_row_that_get_no_answer_open_it(impatient: Breaker) -> None:
    for _ in range(2):
        await fail(impatient, DeadlineExceeded("late"))
    await answer(impatient)
    for _ in range(2):
        await fail(impatient, DeadlineExceeded("late"))
    await fail(impatient, Conflict("an answer"))
    for _ in range(3):
        assert impatient.state == "closed"
        await fail(impatient, DeadlineExceeded("late"))
    assert impatient.state == "open"


async def test_health_checks_without_an_answer_open_it_before_callers_wait_in_vain(impatient: Breaker) -> None:
    for answered in (False, True, False, False):
        impatient.checked(answered=answered)
    assert impatient.state == "closed"
    impatient.checked(answered=False)
    await refused(impatient)
    impatient.checked(answered=True)
    assert impatient.state == "closed"  # no call has failed: there is nothing to try


async def test_a_health_check_that_is_answered_opens_no_door_where_calls_fail(impatient: Breaker) -> None:
    for _ in range(3):
        await fail(impatient, DeadlineExceeded("late"))
    impatient.checked(answered=True)
    assert impatient.state == "open"
    impatient.checked(answered=False)
    impatient.checked(answered=True)
    assert impatient.state == "half-open"


async def test_what_a_caller_in_a_hurry_gave_up_says_nothing() -> None:
    breaker = Breaker("upstream", least_calls=1, patience_seconds=60, most_silences=1)
    await fail(breaker, DeadlineExceeded("no time was left"))
    assert breaker.state == "closed"
    await fail(breaker, Unavailable("away"))
    assert breaker.state == "open"


def test_the_window_forgets_what_is_older() -> None:
    now = [0.0]
    window = RollingWindow(window_seconds=10, least_calls=2, now=lambda: now[0])
    window.record(failed=True)
    window.record(failed=True)
    assert window.failing
    now[0] = 10.5
    for _ in range(2):
        window.record(failed=False)
    window.record(failed=True)
    assert not window.failing


def test_an_upstream_that_hangs_is_judged_by_calls_of_the_last_minute() -> None:
    now = [0.0]
    window = RollingWindow(window_seconds=10, least_calls=5, now=lambda: now[0])
    for _ in range(5):
        now[0] += 11
        assert not window.failing
        window.record(failed=True)
    assert window.failing
    now[0] += 61
    window.record(failed=True)
    assert not window.failing


async def test_where_nobody_calls_health_checks_that_are_answered_close_it() -> None:
    idle = await opened(Breaker("idle", reset_seconds=0.2, least_calls=4))
    idle.checked(answered=True)
    assert idle.is_open, "its time is not up"

    states = [idle.state]
    while states[-1] != "closed":
        await asyncio.sleep(0.02)
        idle.checked(answered=True)
        states.append(idle.state)
    assert list(dict.fromkeys(states)) == ["open", "half-open", "closed"]
