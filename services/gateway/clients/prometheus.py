"""What the gateway asks Prometheus, over its HTTP API."""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import aiohttp

from chassis.breakers import Breaker
from chassis.checked_upstreams import refuse_while_open
from chassis.errors import DeadlineExceeded, Invalid, Unavailable
from services.gateway.shares import HeldBytes, Places, Turns

_MOST_ANSWER_BYTES = 32 << 20
_RETRY_AFTER_SECONDS = 2.0

#: Names and values of an HTTP request's parameters; a name may come several times.
Parameters = Sequence[tuple[str, str]]


class _Answer(Exception):
    """What Prometheus answered; raised where the breaker must see a failure."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


#: Answers that speak against Prometheus rather than against the query; 503 is a query that took too long.
_FAILURES = frozenset({500, 502, 504})


class Prometheus:
    """The series, over Prometheus' HTTP API. Expressions that get here see one project only (`promql`)."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        address: Callable[[], str],
        answers: HeldBytes,
        *,
        reset_seconds: float,
        timeout_seconds: float,
        most_calls: int,
        most_queries: int,
    ) -> None:
        """`address` is asked for with each request: it may hold a password, which may change. Of `most_calls` no more
        than `most_queries` are asked at a time; the others wait."""
        self._session = session
        self._address = address
        # How long a query takes is its author's choice: silence alone says little.
        self.breaker = Breaker("prometheus", reset_seconds=reset_seconds)
        self._timeout_seconds = timeout_seconds
        self._places = Places("prometheus", most_calls)
        self._turns = Turns("prometheus", most_queries)
        self._answers = answers

    async def get(self, path: str, parameters: Parameters) -> tuple[int, bytes]:
        """A GET below `/api/v1/`: status and JSON body. Raises Unavailable, DeadlineExceeded or Invalid (too large)."""
        return await self._ask("GET", path, params=parameters)

    async def post(self, path: str, parameters: Parameters) -> tuple[int, bytes]:
        """The same with the parameters as a form, which may be long."""
        return await self._ask("POST", path, data=parameters)

    async def _ask(self, method: str, path: str, **parameters: Parameters) -> tuple[int, bytes]:
        self.breaker.check()  # before there is a turn to wait for
        try:
            with self._places.one():
                async with self._turns.one(self._timeout_seconds):
                    return await self._answered(method, self._url(f"api/v1/{path}"), **parameters)
        except _Answer as failure:
            return failure.status, failure.body
        except TimeoutError as error:
            raise DeadlineExceeded("Prometheus did not answer in time.") from error
        except aiohttp.ClientError as error:
            raise Unavailable("Prometheus is away.", retry_after_seconds=_RETRY_AFTER_SECONDS) from error

    async def _answered(self, method: str, url: str, **parameters: Any) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=self._timeout_seconds)
        with self.breaker.guarded():
            async with self._session.request(
                method, url, **parameters, timeout=timeout, allow_redirects=False
            ) as response:
                answer = _Answer(response.status, await self._read(response))
            if answer.status in _FAILURES:
                raise answer
            return answer.status, answer.body

    async def probe(self) -> None:
        """A health check. Raises where Prometheus is not ready, or its breaker is open."""
        async with self._session.get(self._url("-/ready")) as response:
            if response.status != HTTPStatus.OK:
                raise Unavailable(f"Prometheus answers {response.status}")
        self.breaker.checked(answered=True)
        refuse_while_open([self.breaker])

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body, held = bytearray(), self._answers.begin()
        async for chunk in response.content.iter_chunked(1 << 16):
            if len(body) + len(chunk) > _MOST_ANSWER_BYTES:
                raise Invalid("The answer is too large. Ask for fewer series, or for a larger step.")
            held.more(len(chunk))
            body += chunk
        if response.content_type != "application/json":
            raise Unavailable("Prometheus answered something else than JSON.", retry_after_seconds=_RETRY_AFTER_SECONDS)
        return bytes(body)

    def _url(self, path: str) -> str:
        return f"{self._address().rstrip('/')}/{path}"
