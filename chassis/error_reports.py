"""What is logged as an error is also sent to Sentry, or to anything that speaks its protocol, where a DSN is set.

The same fields as in the log, redacted in the same way, and nothing besides: no request, no local variable, no
environment, no breadcrumb.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from chassis import logs

#: Fields that events are searched by.
_TAGS = ("correlation_id", "trace_id", "lane", "sink")
_FLUSH_SECONDS = 2.0


class _Reporter(logging.Handler):
    """Sends each record to Sentry; the same event of the same logger is one issue there."""

    def __init__(self, capture: Callable[[Any], object]) -> None:
        super().__init__(logging.ERROR)
        self._capture = capture

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(("sentry_sdk", "urllib3")):  # what cannot be sent must not be sent
            return
        fields = dict(record.msg) if isinstance(record.msg, dict) else {"event": record.getMessage()}
        if record.exc_info and "exception" not in fields:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        told: dict[str, Any] = logs.redact(fields)
        self._capture(
            {
                "message": str(told.get("event", "")),
                "level": "fatal" if record.levelno >= logging.CRITICAL else "error",
                "logger": record.name,
                "extra": told,
                "tags": {name: str(told[name]) for name in _TAGS if name in told},
                "fingerprint": [record.name, str(told.get("event", ""))],
            }
        )


@contextmanager
def reporting(service: str, dsn: str | None) -> Iterator[None]:
    """Reports errors while open, and sends the last ones at the end. Does nothing where the DSN is None.

    Call it once in a process, after `logs.configure`.
    """
    if dsn is None:
        yield
        return
    import sentry_sdk  # takes a second, which processes without a DSN shall not spend

    sentry_sdk.init(
        dsn,
        default_integrations=False,
        auto_enabling_integrations=False,
        include_local_variables=False,
        max_breadcrumbs=0,
        server_name=f"pulsegate-{service}",
    )
    reporter = _Reporter(sentry_sdk.capture_event)
    logging.root.addHandler(reporter)
    try:
        yield
    finally:
        logging.root.removeHandler(reporter)
        sentry_sdk.get_client().close(timeout=_FLUSH_SECONDS)
