"""The gateway as any client meets it."""

from collections.abc import Callable
from uuid import UUID

import aiohttp
import msgspec

from chassis.errors import Unavailable
from services.canary import metrics

#: A counter with the label `run`, which the project of the key defines once (docs/objectives.md).
METRIC = "pulsegate_canary_units_total"


class Gateway:
    """Calls with the key of the moment. Every method raises Unavailable where the outcome is not what it must be."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, key: Callable[[], str]) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._key = key

    async def send(self, run: UUID, sequence: int, units: int) -> None:
        """One batch; returns when it is accepted. The same arguments are the same bytes."""
        metric = {"name": METRIC, "value": units, "labels": {"run": run}}
        body = msgspec.json.encode({"producer": run, "sequence": sequence, "metrics": [metric]})
        await self._call("send", "POST", "/api/v1/metrics", 202, data=body)

    async def seen(self, *runs: UUID) -> dict[UUID, int]:
        """The units of each run that a query answers now; a series that nobody writes for a while is not lost yet."""
        names = "|".join(map(str, runs))
        query = {"query": f'sum by (run) (last_over_time({METRIC}{{run=~"{names}"}}[1h]))'}
        answer = await self._call("query", "GET", "/prometheus/api/v1/query", 200, params=query)
        result = msgspec.json.decode(answer)["data"]["result"]
        return {UUID(series["metric"]["run"]): int(float(series["value"][1])) for series in result}

    async def _call(
        self,
        what: str,
        method: str,
        path: str,
        wanted: int,
        *,
        data: bytes | None = None,
        params: dict[str, str] | None = None,
    ) -> bytes:
        outcome = "failed"
        headers = {"Authorization": f"Bearer {self._key()}", "Content-Type": "application/json"}
        try:
            async with self._session.request(
                method, self._base_url + path, data=data, params=params, headers=headers
            ) as response:
                answer = await response.read()
            if response.status != wanted:
                raise Unavailable(f"{what} was answered {response.status}: {answer[:200].decode(errors='replace')}")
            outcome = "ok"
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"{what}: {error or type(error).__name__}") from error
        finally:
            metrics.CALLS.labels(what, outcome).inc()
        return answer
