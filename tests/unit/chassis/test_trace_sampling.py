"""Which requests are traced."""

import random

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from chassis.settings import ServiceSettings, SettingsError, load
from chassis.trace_sampling import NAMES, sampler

REQUIRED = {"PULSEGATE_OPS_PORT": "8081", "PULSEGATE_SERVICE_TOKEN": "shared"}


def caller(*, sampled: bool) -> Context:
    """A request that goes on with a trace."""
    span = SpanContext(7, 7, is_remote=True, trace_flags=TraceFlags(1 if sampled else 0))
    return trace.set_span_in_context(NonRecordingSpan(span), Context())


def takes(chosen: Sampler, trace_id: int, parent: Context | None = None) -> bool:
    return chosen.should_sample(parent or Context(), trace_id, "request").decision is Decision.RECORD_AND_SAMPLE


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("parentbased")])
def test_those_that_go_by_the_caller_follow_it(name: str) -> None:
    assert takes(sampler(name, 0.0), 7, caller(sampled=True))
    assert not takes(sampler(name, 1.0), 7, caller(sampled=False))


@pytest.mark.parametrize("name", ["always_on", "traceidratio"])
def test_the_others_choose_themselves(name: str) -> None:
    assert takes(sampler(name, 1.0), 7, caller(sampled=False))
    assert not takes(sampler("always_off", 1.0), 7, caller(sampled=True))


@pytest.mark.parametrize("name", ["traceidratio", "parentbased_traceidratio"])
def test_a_ratio_chooses_that_part_and_the_same_traces_everywhere(name: str) -> None:
    trace_ids = [random.Random(number).getrandbits(128) for number in range(4000)]
    chosen = [takes(sampler(name, 0.25), trace_id) for trace_id in trace_ids]
    assert 900 < sum(chosen) < 1100
    assert chosen == [takes(sampler(name, 0.25), trace_id) for trace_id in trace_ids]


def test_settings_name_what_there_is() -> None:
    loaded = load(ServiceSettings, REQUIRED | {"PULSEGATE_TRACES_SAMPLER": "traceidratio"})
    assert (loaded.traces_sampler, loaded.traces_sampler_ratio) == ("traceidratio", 1.0)
    told = {"PULSEGATE_TRACES_SAMPLER": "sometimes", "PULSEGATE_TRACES_SAMPLER_ARG": "2"}
    with pytest.raises(SettingsError) as refused:
        load(ServiceSettings, REQUIRED | told)
    assert len(refused.value.faults) == 2
