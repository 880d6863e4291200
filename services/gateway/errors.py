"""The gateway's own errors, and how every error becomes the body of an answer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from chassis import context
from chassis.clock import SystemClock, from_unix_ms, rfc3339
from chassis.errors import Forbidden, Invalid, Limited, Malformed, NotFound, PulsegateError, Unauthenticated

#: `errorType` of Prometheus' HTTP API by kind of error.
_PROMETHEUS_TYPES = {
    "malformed": "bad_data",
    "invalid": "execution",
    "too_large": "bad_data",
    "unsupported_media_type": "bad_data",
    "unauthenticated": "unauthorized",
    "forbidden": "forbidden",
    "not_found": "not_found",
    "method_not_allowed": "bad_data",
    "limited": "too_many_requests",
    "unavailable": "unavailable",
    "deadline_exceeded": "timeout",
}

#: Where OTLP/HTTP metrics come in, and in which formats.
OTLP_PATH = "/v1/metrics"
OTLP_PROTOBUF = "application/x-protobuf"
OTLP_CONTENT_TYPES = frozenset({OTLP_PROTOBUF, "application/json"})

#: Where errors have the shape of Prometheus.
BELOW_PROMETHEUS = "/prometheus/"

#: Where requests and answers have the shapes of SCIM 2.0, errors too, and of which content type.
BELOW_SCIM = "/scim/"
SCIM = "application/scim+json"
_SCIM_ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
#: The detail of an error that says what SCIM calls it.
_SCIM_TYPE = "scimType"

#: What clients may be told, by status.
CODES: Mapping[int, Sequence[str]] = {
    400: ("MALFORMED_REQUEST", "MALFORMED_JSON", "SAMPLES_REJECTED", "BATCH_REJECTED"),
    401: (
        "UNAUTHENTICATED",
        "TOKEN_EXPIRED",
        "INVALID_API_KEY",
        "INVALID_CREDENTIALS",
        "TOTP_REQUIRED",
        "INVALID_TOTP",
        "SSO_FAILED",
        "SSO_STATE_INVALID",
    ),
    403: (
        "FORBIDDEN",
        "INSUFFICIENT_SCOPE",
        "ORIGIN_NOT_ALLOWED",
        "SSO_MEMBER_REMOVED",
        "SSO_NOT_ALLOWED",
        "TENANT_SUSPENDED",
        "REQUEST_REFUSED",
    ),
    404: ("NOT_FOUND",),
    405: ("METHOD_NOT_ALLOWED",),
    409: ("CONFLICT", "IDEMPOTENCY_KEY_IN_USE", "IDEMPOTENT_ANSWER_NOT_KEPT", "IDEMPOTENT_OUTCOME_UNKNOWN"),
    412: ("VERSION_MISMATCH",),
    413: ("BODY_TOO_LARGE",),
    415: ("UNSUPPORTED_MEDIA_TYPE",),
    422: (
        "VALIDATION_FAILED",
        "INVALID_TOKEN",
        "METRIC_LIMIT_REACHED",
        "DELETED_METRIC_LIMIT_REACHED",
        "DEFINITIONS_FULL",
        "CLIENT_TOO_LARGE",
        "PROJECT_LIMIT_REACHED",
        "KEY_LIMIT_REACHED",
        "BATCH_EMPTY",
        "BATCH_TOO_LARGE",
        "BATCH_REJECTED",
        "SEQUENCE_OUT_OF_WINDOW",
        "IDEMPOTENCY_KEY_REUSED",
    ),
    429: ("RATE_LIMIT_EXCEEDED", "QUOTA_EXCEEDED"),
    500: ("INTERNAL", "ANSWER_TOO_LARGE"),
    503: ("SERVICE_UNAVAILABLE",),
    504: ("DEADLINE_EXCEEDED",),
}

_JSON = "application/json"

_clock = SystemClock()


def invalid_api_key(message: str = "This API key is not valid.") -> Unauthenticated:
    """A key that is malformed, unknown, revoked or expired."""
    return Unauthenticated(message, code="INVALID_API_KEY")


def malformed_json(message: str) -> Malformed:
    """A body that is not JSON."""
    return Malformed(message, code="MALFORMED_JSON")


def origin_not_allowed(origin: str | None) -> Forbidden:
    """A publishable key, or a page, used from an origin that is not on its list."""
    shown = "a request without an Origin header" if origin is None else f"the origin {origin[:200]}"
    return Forbidden(f"This is not allowed from {shown}.", code="ORIGIN_NOT_ALLOWED")


def not_found() -> NotFound:
    """Absent, or another tenant's: never said which."""
    return NotFound("There is nothing here, or it is not yours to see.")


def tenant_suspended() -> Forbidden:
    """What auth answers too, where it is asked about the tenant."""
    return Forbidden("This tenant is suspended. Ask the operators of this Pulsegate.", code="TENANT_SUSPENDED")


def batch_rejected(outcome: dict[str, Any]) -> Invalid:
    """A batch of which no metric was accepted; `outcome` says why for each."""
    return Invalid("No metric of this batch was accepted.", code="BATCH_REJECTED", details=outcome)


def points_rejected(reasons: str) -> Malformed:
    """A request of a door whose specification has 400 for one of which nothing was accepted."""
    return Malformed(f"No data point was accepted: {reasons}", code="BATCH_REJECTED")


def samples_rejected(reasons: str, outcome: dict[str, Any]) -> Malformed:
    """A request of remote write of which some samples were rejected; `outcome` says why for each."""
    message = f"Some samples were rejected; the others, {outcome['accepted']}, are stored: {reasons}"
    return Malformed(message, code="SAMPLES_REJECTED", details=outcome)


def push_rejected(outcome: dict[str, Any]) -> Malformed:
    """A push of which nothing was accepted, whose clients know 400; `outcome` says why for each series."""
    return Malformed("No series of this push was accepted.", code="BATCH_REJECTED", details=outcome)


def scim_fault(scim_type: str, message: str) -> Malformed:
    """A request that is not one of SCIM; `scim_type` as in RFC 7644, 3.12."""
    return Malformed(message, details={_SCIM_TYPE: scim_type})


def rate_limit_exceeded(quota: str, retry_after_seconds: float) -> Limited:
    """One call too many."""
    message = f"The rate limit {quota} is used up; wait {_whole(retry_after_seconds)} s."
    return Limited(message, details={"limit": quota}, retry_after_seconds=retry_after_seconds)


def render(error: PulsegateError, path: str, content_type: str) -> tuple[bytes, str]:
    """The body of an error for a request with this path and content type, and the body's own.

    Prometheus' shape below `/prometheus/`, SCIM's below `/scim/`, a `google.rpc.Status` in the request's format for
    OTLP, else the one shape.
    """
    message = error.message.encode("utf-8", "replace").decode("utf-8")  # it may show what a client sent
    if path == OTLP_PATH and content_type in OTLP_CONTENT_TYPES:
        return otlp(Status(code=error.grpc_status.value[0], message=f"{error.code}: {message}"), content_type)
    if path.startswith(BELOW_PROMETHEUS):
        kind = _PROMETHEUS_TYPES.get(error.kind, "internal")
        return msgspec.json.encode({"status": "error", "errorType": kind, "error": message}), _JSON
    if path.startswith(BELOW_SCIM):
        return _scim(error, f"{error.code}: {message}"), SCIM
    body: dict[str, Any] = {
        "code": error.code,
        "message": message,
        "timestamp": rfc3339(from_unix_ms(_clock.now_ms())),
        "correlationId": context.CORRELATION_ID.get(),
    }
    if error.details is not None:
        body["details"] = error.details
    return msgspec.json.encode({"error": body}), _JSON


def _scim(error: PulsegateError, detail: str) -> bytes:
    body = {"schemas": [_SCIM_ERROR], "status": str(error.http_status), "detail": detail}
    kind = (error.details or {}).get(_SCIM_TYPE)
    return msgspec.json.encode({**body, _SCIM_TYPE: kind} if kind else body)


def otlp(message: Message, content_type: str) -> tuple[bytes, str]:
    """A message of OTLP/HTTP as a body of that content type, and the content type."""
    if content_type == OTLP_PROTOBUF:
        return message.SerializeToString(), content_type
    return json_format.MessageToJson(message, indent=None).encode(), content_type


def headers(error: PulsegateError) -> dict[str, str]:
    """The headers that belong to an error."""
    found = {}
    if error.kind == "unauthenticated":
        found["WWW-Authenticate"] = "Bearer"
    if error.retry_after_seconds is not None or error.kind in ("limited", "unavailable"):
        found["Retry-After"] = str(_whole(error.retry_after_seconds or 1))
    return found


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))
