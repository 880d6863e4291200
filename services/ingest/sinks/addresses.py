"""The list of sinks, as the settings have it."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

#: The sink of `PULSEGATE_REMOTE_WRITE_URL`.
REMOTE_WRITE = "remote_write"

_SINK_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
#: What requests to sinks say of themselves.
_OWN_HEADERS = frozenset(
    (
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "user-agent",
        "x-prometheus-remote-write-version",
    )
)


class SinkKind(StrEnum):
    """The protocol that a sink speaks."""

    REMOTE_WRITE = "remote_write"
    PUSHGATEWAY = "pushgateway"


@dataclass(frozen=True, kw_only=True)
class SinkAddress:
    """One place where values go."""

    #: Under this name it is known to the watermark, the ledger and metrics.
    name: str
    kind: SinkKind = SinkKind.REMOTE_WRITE
    url: str = field(repr=False)

    def __str__(self) -> str:
        """As in `PULSEGATE_SINKS`."""
        return f"{self.name}={self.kind}+{self.url}"


@dataclass(frozen=True, kw_only=True)
class SinkHeader:
    """What each request to a sink carries besides, such as credentials or a tenant."""

    sink: str
    name: str
    value: str = field(repr=False)


def sinks(text: str) -> tuple[SinkAddress, ...]:
    """Parses `name=kind+url` and `name=url` (remote write), separated by commas or white space."""
    found, faults = [], []
    for entry in re.split(r"[,\s]+", text.strip(", \t\n")):
        try:
            found.append(_sink(entry))
        except ValueError as fault:
            faults.append(str(fault))
    names = [sink.name for sink in found]
    faults += [f"names {name!r} twice" for name in sorted(set(names)) if names.count(name) > 1]
    if faults:
        raise ValueError(", ".join(faults))
    return tuple(found)


def _sink(entry: str) -> SinkAddress:
    name, equals, address = entry.partition("=")
    if not equals or not _SINK_NAME.fullmatch(name):  # which is not repeated: it may be an address with a secret
        raise ValueError("each must be name=address, the name of small letters, digits, '-' and '_'")
    kind, plus, url = address.partition("+")
    if not plus or kind not in set(SinkKind):
        kind, url = SinkKind.REMOTE_WRITE, address
    if not _is_http(url):
        kinds = " or ".join(f"{each}+" for each in SinkKind)
        raise ValueError(
            f"{name!r} must have an address that starts with http:// or https://, after {kinds} or nothing"
        )
    if "@" in urlsplit(url).netloc:
        raise ValueError(f"{name!r} must have its credentials in PULSEGATE_SINK_HEADERS, not in its address")
    return SinkAddress(name=name, kind=SinkKind(kind), url=url)


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no such port
        return False


def headers(text: str) -> tuple[SinkHeader, ...]:
    """Parses JSON: `{"<sink>": {"<header>": "<value>"}}`."""
    try:
        decoded = msgspec.json.decode(text, type=dict[str, dict[str, str]])
    except msgspec.MsgspecError:
        raise ValueError('must be JSON like {"<sink>": {"<header>": "<value>"}}') from None  # it may quote a secret
    found = [
        SinkHeader(sink=sink, name=name, value=value)
        for sink, values in decoded.items()
        for name, value in values.items()
    ]
    faults = [f"{each.name!r} of {each.sink!r} cannot be set" for each in found if not _may_be_set(each)]
    if faults:
        raise ValueError(", ".join(faults))
    return tuple(found)


def _may_be_set(header: SinkHeader) -> bool:
    well_formed = _HEADER_NAME.fullmatch(header.name) and _HEADER_VALUE.fullmatch(header.value)
    return bool(well_formed) and header.name.lower() not in _OWN_HEADERS
