"""Questions that come while others are under way, and are asked together once these are answered."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

#: Questions that are answered in one round trip.
_MOST_AT_ONCE = 256


class RoundTrips(Generic[Question, Answer]):
    """One at a time: what is asked during a round trip is asked in the next one."""

    def __init__(self, ask: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]]) -> None:
        """`ask` answers each question in its place."""
        self._ask = ask
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._asking: asyncio.Task[None] | None = None

    async def answer(self, question: Question) -> Answer:
        """Of a round trip that begins after this call. Raises what the round trip does."""
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answered))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_waiting())
        return await answered

    async def _ask_waiting(self) -> None:
        try:
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_AT_ONCE))]
                try:
                    answers = await self._ask([question for question, _ in group])
                except Exception as error:  # noqa: BLE001 - whoever waits is told
                    for _, answered in group:
                        if not answered.done():
                            answered.set_exception(error)
                else:
                    for (_, answered), answer in zip(group, answers, strict=True):
                        if not answered.done():
                            answered.set_result(answer)
        finally:
            self._asking = None
