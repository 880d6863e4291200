"""What an installation says of itself: readiness of its processes, and figures from Prometheus."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Asks an installation directly, as its processes ask each other, whatever proxy the environment names.
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))

_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """One process."""

    name: str
    #: ready, degraded, unready or away
    status: str
    #: why a dependency is down, by its name
    missing: Mapping[str, str]
    #: the names of those among them without which it cannot work
    hard: frozenset[str] = frozenset()


def fetched(url: str) -> tuple[int, str]:
    """An answer, whatever its status; 0 and the reason where there is none."""
    try:
        with DIRECTLY.open(url, timeout=_TIMEOUT_SECONDS) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except (OSError, ValueError) as error:
        return 0, str(getattr(error, "reason", error))


def readiness(name: str, address: str) -> Readiness:
    """What a process says."""
    status, body = fetched(f"{address}/health/ready")
    if status not in (200, 503):
        return Readiness(name=name, status="away", missing={"process": body[:200]})
    told = json.loads(body)
    down = {check: facts for check, facts in told["checks"].items() if facts["status"] == "down"}
    return Readiness(
        name=name,
        status=told["status"],
        missing={check: facts.get("reason", "down") for check, facts in down.items()},
        hard=frozenset(check for check, facts in down.items() if facts["hard"]),
    )


def queried(prometheus: str, expression: str) -> list[tuple[Mapping[str, str], float]] | None:
    """What PromQL answers, as labels and values; None where Prometheus does not."""
    query = urllib.parse.urlencode({"query": expression})
    status, body = fetched(f"{prometheus}/api/v1/query?{query}")
    if status != 200:
        return None
    result: list[dict[str, Any]] = json.loads(body)["data"]["result"]
    return [(series["metric"], float(series["value"][1])) for series in result]
