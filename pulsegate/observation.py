"""What an installation says of itself: readiness of its processes, and figures from Prometheus."""

import base64
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import TypeVar

import msgspec

from pulsegate.installation import Installation

#: Asks an installation directly, as its processes ask each other, whatever proxy the environment names.
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))

_TIMEOUT_SECONDS = 5.0

T = TypeVar("T")


class _Check(msgspec.Struct):
    status: str
    hard: bool
    reason: str = "down"


class _Health(msgspec.Struct):
    status: str
    checks: dict[str, _Check]


class _Series(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _Result(msgspec.Struct):
    result: list[_Series]


class _Queried(msgspec.Struct):
    data: _Result


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
        with DIRECTLY.open(_request(url), timeout=_TIMEOUT_SECONDS) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except (OSError, HTTPException, ValueError) as error:
        return 0, str(getattr(error, "reason", error))


def _request(url: str) -> urllib.request.Request:
    """A user and password in the address are sent as HTTP's Basic scheme has them."""
    address = urllib.parse.urlsplit(url)
    credentials, _, host = address.netloc.rpartition("@")
    request = urllib.request.Request(address._replace(netloc=host).geturl())  # noqa: S310 - the operator has named it
    if credentials:
        told = base64.b64encode(urllib.parse.unquote_to_bytes(credentials)).decode()
        request.add_unredirected_header("Authorization", f"Basic {told}")
    return request


def decoded(body: bytes | str, kind: type[T]) -> T | None:
    """What a body of JSON says; None where it is no such thing, as of a server of another kind."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError:
        return None


def readiness(name: str, address: str) -> Readiness:
    """What a process says."""
    status, body = fetched(f"{address}/health/ready")
    told = decoded(body, _Health) if status in (200, 503) else None
    if told is None:
        return Readiness(name=name, status="away", missing={"process": " ".join(body[:200].split())})
    down = {name: check for name, check in told.checks.items() if check.status == "down"}
    return Readiness(
        name=name,
        status=told.status,
        missing={name: check.reason for name, check in down.items()},
        hard=frozenset(name for name, check in down.items() if check.hard),
    )


def observed(installation: Installation, expression: str) -> list[tuple[Mapping[str, str], float]] | None:
    """What PromQL answers of an installation whose series `{tenant_id=""` begins to select, as in the chart's rules.

    Those of no namespace are nobody else's: rules that are read as they are, not as the chart renders them, make such.
    """
    if installation.namespace:
        own = f'{{namespace=~"{installation.namespace}|",tenant_id=""'
        expression = expression.replace('{tenant_id=""', own)
    return queried(installation.prometheus, expression)


def queried(prometheus: str, expression: str) -> list[tuple[Mapping[str, str], float]] | None:
    """What PromQL answers, as labels and values; None where Prometheus does not."""
    query = urllib.parse.urlencode({"query": expression})
    status, body = fetched(f"{prometheus}/api/v1/query?{query}")
    answer = decoded(body, _Queried) if status == 200 else None
    if answer is None:
        return None
    return [(series.metric, float(series.value[1])) for series in answer.data.result]
