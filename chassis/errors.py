"""Errors that cross services whole and are rendered once, at the edge.

Raise a subclass of `PulsegateError` (or one of a service's `errors.py`); `chassis.grpc_server` carries it over gRPC,
`chassis.grpc_client` raises it again on the other side, the gateway renders it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import grpc
import msgspec

#: gRPC trailing metadata that carries the error whole, as JSON.
ERROR_METADATA_KEY = "pulsegate-error-bin"

#: Details that would make the written error larger are left out. `chassis.grpc_client` takes metadata of twice this
#: size; other gRPC clients may not take more than 8 KB.
MOST_WIRE_BYTES = 32_000

#: Every kind of error: its gRPC status and its HTTP status.
STATUSES: Mapping[str, tuple[grpc.StatusCode, int]] = {
    "malformed": (grpc.StatusCode.INVALID_ARGUMENT, 400),
    "unauthenticated": (grpc.StatusCode.UNAUTHENTICATED, 401),
    "forbidden": (grpc.StatusCode.PERMISSION_DENIED, 403),
    "not_found": (grpc.StatusCode.NOT_FOUND, 404),
    "method_not_allowed": (grpc.StatusCode.UNIMPLEMENTED, 405),
    "conflict": (grpc.StatusCode.ALREADY_EXISTS, 409),
    "version_mismatch": (grpc.StatusCode.ABORTED, 412),
    "too_large": (grpc.StatusCode.OUT_OF_RANGE, 413),
    "unsupported_media_type": (grpc.StatusCode.INVALID_ARGUMENT, 415),
    "invalid": (grpc.StatusCode.FAILED_PRECONDITION, 422),
    "limited": (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    "internal": (grpc.StatusCode.INTERNAL, 500),
    "unavailable": (grpc.StatusCode.UNAVAILABLE, 503),
    "deadline_exceeded": (grpc.StatusCode.DEADLINE_EXCEEDED, 504),
}


class PulsegateError(Exception):
    """An error that a caller is told about: a stable code, a safe message, structured details.

    `details` must be JSON; `retry_after_seconds` says when trying again makes sense.
    """

    kind: ClassVar[str] = "internal"
    code: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.details = details
        self.retry_after_seconds = retry_after_seconds

    @property
    def grpc_status(self) -> grpc.StatusCode:
        return STATUSES[self.kind][0]

    @property
    def http_status(self) -> int:
        return STATUSES[self.kind][1]


class Malformed(PulsegateError):
    kind, code = "malformed", "MALFORMED_REQUEST"


class Unauthenticated(PulsegateError):
    kind, code = "unauthenticated", "UNAUTHENTICATED"


class Forbidden(PulsegateError):
    kind, code = "forbidden", "FORBIDDEN"


class NotFound(PulsegateError):
    kind, code = "not_found", "NOT_FOUND"


class MethodNotAllowed(PulsegateError):
    kind, code = "method_not_allowed", "METHOD_NOT_ALLOWED"


class Conflict(PulsegateError):
    kind, code = "conflict", "CONFLICT"


class VersionMismatch(PulsegateError):
    kind, code = "version_mismatch", "VERSION_MISMATCH"


class TooLarge(PulsegateError):
    kind, code = "too_large", "BODY_TOO_LARGE"


class UnsupportedMediaType(PulsegateError):
    kind, code = "unsupported_media_type", "UNSUPPORTED_MEDIA_TYPE"


class Invalid(PulsegateError):
    """Well-formed but invalid. `Invalid.fields({"name": "…"})` names the members at fault."""

    kind, code = "invalid", "VALIDATION_FAILED"

    @classmethod
    def fields(cls, faults: Mapping[str, str]) -> "Invalid":
        listed = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        return cls(f"The request is not valid. {listed}", details={"fields": dict(faults)})


class Limited(PulsegateError):
    kind, code = "limited", "RATE_LIMIT_EXCEEDED"


class Internal(PulsegateError):
    kind, code = "internal", "INTERNAL"


class AnswerTooLarge(Internal):
    """An answer that is larger than a message may be: that is so of one question, and says nothing of other calls."""

    code = "ANSWER_TOO_LARGE"


#: The member of an error's details that names what a service, itself well, lacks or has too much to do with.
WAITING_FOR = "waitingFor"


class Unavailable(PulsegateError):
    kind, code = "unavailable", "SERVICE_UNAVAILABLE"

    @classmethod
    def waiting_for(cls, dependency: str, message: str, retry_after_seconds: float) -> Self:
        """What a service answers that is well but lacks something: its callers' breakers stay closed, because other
        calls may not need that, and because the answer comes at once."""
        return cls(message, details={WAITING_FOR: dependency}, retry_after_seconds=retry_after_seconds)


class DeadlineExceeded(PulsegateError):
    kind, code = "deadline_exceeded", "DEADLINE_EXCEEDED"


_BY_KIND: Mapping[str, type[PulsegateError]] = {error.kind: error for error in PulsegateError.__subclasses__()}


class _Wire(msgspec.Struct, omit_defaults=True):
    kind: str
    code: str
    message: str
    details: dict[str, Any] | None = None
    retry_after_seconds: float | None = None


def to_wire(error: PulsegateError) -> bytes:
    """The error as JSON for `ERROR_METADATA_KEY`; details are left out where they would be too large."""
    details = dict(error.details) if error.details else None
    wire = _Wire(error.kind, error.code, error.message, details, error.retry_after_seconds)
    encoded = msgspec.json.encode(wire)
    if len(encoded) <= MOST_WIRE_BYTES:
        return encoded
    wire.details, wire.message = None, error.message[:1000]
    return msgspec.json.encode(wire)


def from_wire(encoded: bytes) -> PulsegateError:
    """The error that `to_wire` wrote. Raises msgspec.DecodeError on anything else."""
    wire = msgspec.json.decode(encoded, type=_Wire)
    error_class = _BY_KIND.get(wire.kind, Internal)
    return error_class(wire.message, code=wire.code, details=wire.details, retry_after_seconds=wire.retry_after_seconds)
