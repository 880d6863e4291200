"""The try after a rollout: what a client sends to the new version must come back from its queries, exactly.

Standard library alone, so that it runs wherever somebody deploys from.
"""

import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any

#: A counter with one label, `run`, that the project of the key defines once (docs/release.md).
METRIC = "pulsegate_smoke_total"
_BATCHES = 20
_TIMEOUT_SECONDS = 10.0


class SmokeError(Exception):
    """The installation does not do what it must; the text says what it did instead."""


def smoke(url: str, key: str, *, patience_seconds: float = 30.0) -> str:
    """Send, read back, and return one line that says what was seen.

    `key` is a secret key with ingest:write and query:read. Each batch is sent twice, as a client does whose first
    answer was lost: it must count once. `patience_seconds` is how long the total may take to be right.
    """
    _call(url, "/health/ready")
    run, producer = secrets.token_hex(8), str(uuid.uuid4())
    began = time.monotonic()
    for sequence in range(1, _BATCHES + 1):
        metric = {"name": METRIC, "value": sequence, "labels": {"run": run}}
        batch = {"producer": producer, "sequence": sequence, "metrics": [metric]}
        for _ in range(2):
            outcome = _call(url, "/api/v1/metrics", key, batch)
            if outcome["accepted"] != 1:
                raise SmokeError(f"a batch was answered {outcome}")
    sent = _BATCHES * (_BATCHES + 1) // 2
    _wait_until_counted(url, key, run, sent, time.monotonic() + patience_seconds)
    return f"sent {sent}, counted {sent}, within {time.monotonic() - began:.1f} s"


def _wait_until_counted(url: str, key: str, run: str, sent: int, deadline: float) -> None:
    path = "/prometheus/api/v1/query?" + urllib.parse.urlencode({"query": f'{METRIC}{{run="{run}"}}'})
    while True:
        result = _call(url, path, key)["data"]["result"]
        counted = float(result[0]["value"][1]) if result else 0.0
        if counted == sent:
            return
        if counted > sent or time.monotonic() > deadline:
            raise SmokeError(f"sent {sent}, counted {counted:g}")
        time.sleep(0.5)


def _call(url: str, path: str, key: str = "", body: object = None) -> Any:
    """The parsed answer to a call; every answer but 2xx is a SmokeError."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url.rstrip("/") + path, data, headers)  # noqa: S310 # the caller's own address
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 # nosec B310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise SmokeError(f"{path} answered {error.code}: {error.read(500).decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        raise SmokeError(f"{path}: {error}") from error
