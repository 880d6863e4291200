"""What a metric definition is."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class MetricType(StrEnum):
    """How a metric's values add up."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


class GaugeMerge(StrEnum):
    """What becomes of the levels that several clients report for one gauge."""

    LAST = "last"
    MIN = "min"
    MAX = "max"
    SUM = "sum"


class Action(StrEnum):
    """What a version of a definition came from."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


@dataclass(frozen=True, kw_only=True)
class Label:
    """One label of a metric."""

    name: str
    required: bool = False
    #: Allowed values; empty: any.
    values: tuple[str, ...] = ()
    #: RE2 expression that a whole value must match; empty: any value. Never together with `values`.
    pattern: str = ""
    #: At most so many distinct values become series of their own; 0: no limit of its own.
    max_distinct: int = 0


@dataclass(frozen=True, kw_only=True)
class MetricDraft:
    """A definition as somebody wrote it, unchecked; `validation.validated` makes a `MetricSpec` of it."""

    name: str
    #: None: not given, or not one that exists.
    type: MetricType | None
    unit: str = ""
    help: str = ""
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    objectives: tuple[float, ...] = ()
    gauge_merge: GaugeMerge | None = None
    native_histogram: bool = False


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A valid definition with its defaults filled in."""

    name: str
    type: MetricType
    unit: str
    help: str
    labels: tuple[Label, ...]
    #: A classic histogram's upper bounds, ascending, finite, without +Inf; empty for others.
    buckets: tuple[float, ...]
    #: A summary's quantiles, ascending, each in (0, 1); empty for other types.
    objectives: tuple[float, ...]
    #: None for all but gauges.
    gauge_merge: GaugeMerge | None
    #: A histogram with exponential buckets, which Prometheus keeps in one series.
    native_histogram: bool


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A definition of a project, as it is now."""

    id: str
    tenant_id: str
    project_id: str
    spec: MetricSpec
    #: 1, 2, 3, … with each change of this definition.
    version: int
    #: The feed's revision at which it last changed; unique.
    revision: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    #: Made from data that came, and not yet confirmed by an update.
    provisional: bool = False


#: Of all definitions of a project together, so that they fit into one message.
MOST_BYTES_PER_PROJECT = 8 << 20

#: Of all definitions of a tenant together: every receiver keeps those of all tenants, in several times as much memory.
MOST_BYTES_PER_TENANT = 16 << 20

#: So many a tenant may have for as long as there is room at all, however many others have taken.
LEAST_BYTES_PER_TENANT = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Size:
    """What the definitions of a project come to, those of its tenant, and all that there are."""

    definitions: int
    #: About as many as the project's take in a message.
    bytes: int
    tenant_bytes: int
    all_bytes: int
    #: Of what is deleted, and not yet forgotten.
    tenant_deleted_bytes: int
    all_deleted_bytes: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the settings allow."""

    metrics_per_project: int
    #: Of all definitions together.
    all_bytes: int

    def tenant_bytes(self, all_bytes: int) -> int:
        """How many the definitions of one tenant may have, to grow, where all have so many.

        Four times a tenant's part of it is at most the square of the part that is left, as in the gateways' Redis: one
        alone may have a sixth, and whoever comes after it less, so that a few tenants do not stop all others.
        """
        left = max(0, self.all_bytes - all_bytes)
        return max(LEAST_BYTES_PER_TENANT, left**2 // (4 * self.all_bytes))

    def tenant_deleted_bytes(self, all_deleted_bytes: int) -> int:
        """How many the deleted definitions of one tenant may have, for it to make new ones: by the same rule, of as
        much again. A deletion itself is never refused."""
        return min(MOST_BYTES_PER_TENANT, self.tenant_bytes(all_deleted_bytes))


@dataclass(frozen=True, kw_only=True)
class ProjectSettings:
    """What a project's owners and admins decide."""

    #: Data under an unknown name makes a provisional definition.
    auto_definition: bool = False


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who makes a change, and in which project."""

    tenant_id: str
    project_id: str
    #: User id or key id; the name of what acts by itself.
    subject: str
    #: "user", "secret" or "service".
    kind: str
