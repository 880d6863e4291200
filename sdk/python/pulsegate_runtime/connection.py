"""HTTP: one body out, one answer back."""

from __future__ import annotations

import codecs
import contextlib
import email.utils
import gzip
import http.client
import json
import os
import re
import urllib.parse
from datetime import datetime, timezone
from typing import List, NamedTuple

_GZIP_FROM_BYTES = 1_024
_RETRY_AFTER_CAP_SECONDS = 3600.0
_ANSWER_BYTES = 1024 * 1024
_SENTENCE_CHARACTERS = 500

codecs.lookup("idna")  # for host names: were it first imported while another thread forks, the child would hang in it


class Answer(NamedTuple):
    status: int
    code: str  # of the first rejected metric, or of the error
    message: str  # the server's sentence to that, without the key
    rejected: List[int]  # indexes of metrics
    retry_after_seconds: float

    @property
    def reason(self) -> str:
        """What the server said, for the log."""
        said = ": ".join(filter(None, (self.code, self.message)))
        return f"{self.status} {said}".rstrip()


class Connection:
    """A kept-alive connection to the ingestion endpoint; used by one thread."""

    def __init__(self, endpoint: str, key: str, timeout_seconds: float) -> None:
        self.fault = _fault_of(endpoint, key)  # why nothing can ever be sent, in words that do not quote the key
        self._endpoint = endpoint
        self._key = key
        self._headers = {"X-API-Key": key, "Content-Type": "application/json", "User-Agent": "pulsegate-python/1"}
        self._timeout_seconds = timeout_seconds
        self._http: http.client.HTTPConnection | None = None

    def post(self, body: bytes) -> Answer:
        """Send one body; there must be no `fault`. Raises what goes wrong on the way."""
        kept = self._http is not None and self._http.sock is not None
        try:
            return self._exchange(body)
        except ConnectionError:
            if not kept:
                raise
        return self._exchange(body)  # the server had closed the idle connection: not a failure yet

    def _exchange(self, body: bytes) -> Answer:
        try:
            return self._answered(body)
        except BaseException:
            self.close()  # http.client takes no request while it waits for an answer
            raise

    def _answered(self, body: bytes) -> Answer:
        url = urllib.parse.urlsplit(self._endpoint)
        if self._http is None:
            kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
            # Without a port, it would take the end of an IPv6 address for one.
            self._http = kind(str(url.hostname), url.port or kind.default_port, timeout=self._timeout_seconds)
        headers = dict(self._headers)
        if len(body) >= _GZIP_FROM_BYTES:
            body, headers["Content-Encoding"] = gzip.compress(body, 6, mtime=0), "gzip"
        self._http.request("POST", url.path.rstrip("/") + "/api/v1/metrics", body, headers)
        response = self._http.getresponse()
        content, retry_after = response.read(_ANSWER_BYTES), response.getheader("Retry-After", "")
        answer = _answer(response.status, content, retry_after, self._key)
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


def _fault_of(endpoint: str, key: str) -> str:
    try:
        url = urllib.parse.urlsplit(endpoint)
        if url.scheme not in ("http", "https") or not url.hostname or url.port == 0:
            raise ValueError
        url.hostname.encode("idna")
    except (ValueError, AttributeError, TypeError):
        return f"the endpoint {str(endpoint)[:200]!r} is not an address such as https://metrics.example.com"
    if not re.fullmatch("[!-~]+", key):
        return "the key is empty" if not key else "the key is not one: it has characters that no key has"
    return ""


def _answer(status: int, body: bytes, retry_after: str, key: str) -> Answer:
    said: object = None
    rejected: List[int] = []
    with contextlib.suppress(ValueError, AttributeError, TypeError, LookupError):  # nor need a proxy answer JSON
        document = json.loads(body)
        said = error = document.get("error") or {}
        refused = document.get("rejected") or (error.get("details") or {}).get("rejected", [])
        rejected = [int(one["index"]) for one in refused]
        said = refused[0]
    code, message = (_readable(said, name, key) for name in ("code", "message"))
    return Answer(status, code, message, rejected, _retry_after_seconds(retry_after))


def _readable(said: object, member: str, key: str) -> str:
    """A text of the answer as it may go into one line of a log, whoever has answered."""
    text = said.get(member) if isinstance(said, dict) else ""
    if not isinstance(text, str):
        return ""
    text = text.replace(key, "…")[:_SENTENCE_CHARACTERS]
    return "".join(one if one.isprintable() else " " for one in text)


def _retry_after_seconds(header: str) -> float:
    """RFC 9110, 10.2.3: seconds or a date; 0 where it says neither."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if header.strip().isdigit():
            return min(float(header), _RETRY_AFTER_CAP_SECONDS)
        moment = email.utils.parsedate_to_datetime(header).astimezone(timezone.utc)
        wait = (moment - datetime.now(timezone.utc)).total_seconds()
        return min(max(wait, 0.0), _RETRY_AFTER_CAP_SECONDS)
    return 0.0
