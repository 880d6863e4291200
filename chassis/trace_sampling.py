"""Which requests are traced, named as OpenTelemetry's `OTEL_TRACES_SAMPLER` names it.

Whether a trace is kept for how it ended, slow or in an error, is decided behind, where all of it is known.
"""

from collections.abc import Callable, Mapping

from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

_SAMPLERS: Mapping[str, Callable[[float], Sampler]] = {
    "always_on": lambda _: ALWAYS_ON,
    "always_off": lambda _: ALWAYS_OFF,
    "traceidratio": TraceIdRatioBased,
    # These go on with a trace whose caller has begun it, and only with such.
    "parentbased_always_on": lambda _: ParentBased(ALWAYS_ON),
    "parentbased_always_off": lambda _: ParentBased(ALWAYS_OFF),
    "parentbased_traceidratio": lambda ratio: ParentBased(TraceIdRatioBased(ratio)),
}

NAMES = tuple(_SAMPLERS)


def sampler(name: str, ratio: float) -> Sampler:
    """The sampler of one of `NAMES`; `ratio`, 0 to 1, is the part of all traces that those with a ratio choose, by the
    trace's id: all processes choose the same ones."""
    return _SAMPLERS[name](ratio)
