"""HTTP: one body out, one answer back."""

from __future__ import annotations

import codecs
import contextlib
import email.utils
import gzip
import http.client
import json
import os
import urllib.parse
from datetime import datetime, timezone
from typing import List, NamedTuple

_GZIP_FROM_BYTES = 1_024
_RETRY_AFTER_CAP_SECONDS = 3600.0
_ANSWER_BYTES = 1024 * 1024

codecs.lookup("idna")  # for host names: were it first imported while another thread forks, the child would hang in it


class Answer(NamedTuple):
    status: int
    code: str  # of the error, or of the first rejected metric
    rejected: List[int]  # indexes of metrics
    retry_after_seconds: float


class Connection:
    """A kept-alive connection to the ingestion endpoint; used by one thread."""

    def __init__(self, endpoint: str, key: str, timeout_seconds: float) -> None:
        self._endpoint = endpoint
        self._headers = {"X-API-Key": key, "Content-Type": "application/json", "User-Agent": "pulsegate-python/1"}
        self._timeout_seconds = timeout_seconds
        self._http: http.client.HTTPConnection | None = None

    def post(self, body: bytes) -> Answer:
        """Send one body. Raises what goes wrong on the way, ValueError for an endpoint or key that cannot be used."""
        kept = self._http is not None and self._http.sock is not None
        try:
            return self._exchange(body)
        except ConnectionError:
            self.close()
            if not kept:
                raise
            return self._exchange(body)  # the server had closed the idle connection: not a failure yet
        except BaseException:
            self.close()
            raise

    def _exchange(self, body: bytes) -> Answer:
        url = urllib.parse.urlsplit(self._endpoint)
        if self._http is None:
            kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
            if url.scheme not in kinds or not url.hostname:
                raise ValueError("the endpoint is not an http(s) address")
            self._http = kinds[url.scheme](url.hostname, url.port, timeout=self._timeout_seconds)
        headers = dict(self._headers)
        if len(body) >= _GZIP_FROM_BYTES:
            body, headers["Content-Encoding"] = gzip.compress(body, 6, mtime=0), "gzip"
        self._http.request("POST", url.path.rstrip("/") + "/api/v1/metrics", body, headers)
        response = self._http.getresponse()
        answer = _answer(response.status, response.read(_ANSWER_BYTES), response.getheader("Retry-After", ""))
        if not response.isclosed():  # more than we care to read
            self.close()
        return answer

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def disown(self) -> None:
        """Let go of the parent's socket in a forked child: not by close(), whose locks a lost thread may hold."""
        if self._http is not None and self._http.sock is not None:
            os.close(self._http.sock.detach())


def _answer(status: int, body: bytes, retry_after: str) -> Answer:
    code, rejected = "", []
    with contextlib.suppress(ValueError, AttributeError, TypeError, LookupError):  # nor need a proxy answer JSON
        document = json.loads(body)
        rejected = [int(one["index"]) for one in document.get("rejected", [])]
        code = str((document.get("error") or document["rejected"][0])["code"])
    return Answer(status, code, rejected, _retry_after_seconds(retry_after))


def _retry_after_seconds(header: str) -> float:
    """RFC 9110, 10.2.3: seconds or a date; 0 where it says neither."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if header.strip().isdigit():
            return min(float(header), _RETRY_AFTER_CAP_SECONDS)
        moment = email.utils.parsedate_to_datetime(header).astimezone(timezone.utc)
        wait = (moment - datetime.now(timezone.utc)).total_seconds()
        return min(max(wait, 0.0), _RETRY_AFTER_CAP_SECONDS)
    return 0.0
