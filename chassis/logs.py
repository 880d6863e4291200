"""Structured JSON logs on standard output, one object a line, with secrets and personal data redacted.

`log = logs.get(__name__)`; events are short lower-case sentences, everything variable is a field.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, cast

import structlog
from opentelemetry import trace

from chassis.context import CORRELATION_ID

REDACTED = "[redacted]"

_SECRET_FIELD = re.compile(
    r"pass(word|wd)|secret|token|authorization|cookie|api_?key|private|dsn|master_key", re.IGNORECASE
)
_SECRET_TEXT = re.compile(
    r"(?:pk|sk)_[A-Za-z0-9_-]{8,}"  # API keys
    r"|(?:rt|st|mt|pt)_[A-Za-z0-9_-]{16,}"  # refresh, service, mailed and provisioning tokens
    r"|eyJ[A-Za-z0-9_-]{1,512}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # JWTs; headers without a bound took quadratic time
    r"|(?<=://)[^/\s@]+@"  # user:password in an address
    r"|(?i:bearer\s+)\S+"
    r"|(?i:password|passwd|secret|token)=[^\s&;,]+"  # connection strings, query strings, representations
    r"|(?i:password|passwd|secret|token)[\"']\s*:\s*(?:\"[^\"]*\"?|'[^']*'?)"  # JSON inside of a text
)

# Sign-up takes almost any character in an e-mail address, so it ends only where white space is. Tried at the beginning
# of a run alone, and never backtracking: linear time.
_EMAIL_ADDRESS = re.compile(r"(?<![^\s@])[^\s@]++@\S+")


def redact_text(text: str) -> str:
    """The text with keys, tokens, passwords in addresses and e-mail addresses replaced.

    E-mail addresses go last, with all that touches them: they would take the beginning of a secret, and leave its end.
    """
    return _EMAIL_ADDRESS.sub(REDACTED, _SECRET_TEXT.sub(REDACTED, text))


def redact(value: Any) -> Any:
    """A value of a log field with everything secret replaced, at any depth."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return {redact_text(str(key)): REDACTED if _is_secret(key) else redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact_text(str(value))


def _is_secret(field: Any) -> bool:
    return isinstance(field, str) and _SECRET_FIELD.search(field) is not None


def _redact_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return cast("MutableMapping[str, Any]", redact(dict(event)))


def _add_context(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if correlation_id := CORRELATION_ID.get():
        event["correlation_id"] = correlation_id
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = trace.format_trace_id(span.trace_id)
        event["span_id"] = trace.format_span_id(span.span_id)
    return event


def configure(service: str, level: str = "info") -> None:
    """Sends the process's logs, those of libraries too, to standard output. Call once, at start."""

    def add_service(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        add_service,
        _add_context,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _redact_event,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())
    # signxml tells at debug what somebody has signed: who signs in. What the pool warns of is in readiness.
    for noisy in ("aiohttp.access", "nats", "psycopg.pool", "signxml"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
