"""Generated JavaScript, executed: what each method records, and that no text of a definition becomes code."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings

from services.codegen.domain import Label, Language, Metric, Packaging
from services.codegen.outputters.javascript import literal
from tests.unit.codegen import node, samples
from tests.unit.codegen.node import Node
from tests.unit.codegen.samples import ENDPOINT, KEY, PROJECT, metric

#: What would end a script element, or change how its text is read (HTML, "script data escaped state"), or ends a line
#: for JavaScript but not for everybody.
_UNFIT_FOR_A_PAGE = re.compile("</script|<!--|<script|[\u2028\u2029\0]", re.IGNORECASE)


def _generate(*metrics: Metric, minify: bool = True, **options: Any) -> str:
    return samples.generate(
        *metrics, language=Language.JAVASCRIPT, packaging=Packaging.SCRIPT, minify=minify, **options
    )


@pytest.fixture(scope="module")
def javascript() -> Iterator[Node]:
    with node.running() as running:
        yield running


@pytest.mark.parametrize("minify", [False, True])
def test_a_method_takes_labels_then_value_or_the_value_alone(javascript: Node, minify: bool) -> None:
    source = _generate(
        metric("jobs_total", "counter", Label(name="plan", required=True)),
        metric("depth", "gauge"),
        metric("load_seconds", "histogram"),
        minify=minify,
    )
    calls = javascript.run(
        source
        + """
        pulsegate.jobsTotal({ plan: "pro" });
        pulsegate.jobsTotal({ plan: "pro" }, 0);
        pulsegate.depth(5);
        pulsegate.depth(5, 1500);
        pulsegate.depth({}, 6, 1500);
        pulsegate.loadSeconds(1);
        pulsegate.loadSeconds([1, 2]);
        pulsegate.loadSeconds({ extra: "x" }, [3]);
        """,
        "Pulsegate.Client.calls",
    )
    assert calls == [
        ["jobs_total", 1, {"plan": "pro"}, None, "counter"],
        ["jobs_total", 0, {"plan": "pro"}, None, "counter"],
        ["depth", 5, {}, None, "gauge"],
        ["depth", 5, {}, 1500, "gauge"],
        ["depth", 6, {}, 1500, "gauge"],
        ["load_seconds", 1, {}, None, "histogram"],
        ["load_seconds", [1, 2], {}, None, "histogram"],
        ["load_seconds", [3], {"extra": "x"}, None, "histogram"],
    ]


@pytest.mark.parametrize("minify", [False, True])
def test_a_wrong_call_is_the_runtimes_to_count_and_never_throws(javascript: Node, minify: bool) -> None:
    source = _generate(metric("jobs_total"), metric("depth", "gauge"), minify=minify)
    calls = javascript.run(
        source + 'pulsegate.jobsTotal(null); pulsegate.depth(); pulsegate.depth("5"); pulsegate.depth(null, null);',
        "Pulsegate.Client.calls.map(([name, value]) => [name, value === undefined ? 'undefined' : value])",
    )
    assert calls == [["jobs_total", 1], ["depth", "undefined"], ["depth", "5"], ["depth", None]]


@pytest.mark.parametrize("minify", [False, True])
def test_a_method_apart_from_its_client_records_with_the_pages(javascript: Node, minify: bool) -> None:
    use = """
    const { jobsTotal, depth } = new Pulsegate.Metrics({ key: "other" });
    jobsTotal({ plan: "pro" }, 2);
    depth.call({ record: "of an element" }, 5);
    """
    labelled = _generate(metric("jobs_total", "counter", Label(name="plan")), metric("depth", "gauge"), minify=minify)
    assert javascript.run(labelled + use, "Pulsegate.Client.calls") == [
        ["jobs_total", 2, {"plan": "pro"}, None, "counter"],
        ["depth", 5, {}, None, "gauge"],
    ]
    without_key = _generate(metric("jobs_total"), metric("depth", "gauge"), minify=minify, key="")
    assert javascript.run(without_key + use, "Pulsegate.Client.calls") == []


@pytest.mark.parametrize("minify", [False, True])
def test_a_revoked_proxy_is_counted_as_invalid_and_throws_nothing(javascript: Node, minify: bool) -> None:
    source = _generate(
        metric("jobs_total"), minify=minify, runtime=samples.real_runtime(Language.JAVASCRIPT, minify=minify)
    )
    use = """
    const { proxy, revoke } = Proxy.revocable([], {});
    revoke();
    pulsegate.jobsTotal(proxy);
    void pulsegate.close(0);
    """
    setting = "var performance = { now: () => 0 };"
    assert javascript.run(setting + source + use, "pulsegate.stats.dropped") == {"invalid": 1}


@pytest.mark.parametrize("minify", [False, True])
def test_endpoint_key_and_queue_are_filled_in_and_can_be_replaced(javascript: Node, minify: bool) -> None:
    with_key = _generate(minify=minify)
    filled_in = {"endpoint": ENDPOINT, "key": KEY, "queue": PROJECT}
    assert javascript.run(with_key, "Pulsegate.Client.options") == filled_in
    replaced = with_key + 'new Pulsegate.Metrics({ key: "other", queue: "shop", flushIntervalMs: 5 });'
    assert javascript.run(replaced, "Pulsegate.Client.options") == {
        "endpoint": ENDPOINT,
        "key": "other",
        "queue": "shop",
        "flushIntervalMs": 5,
    }
    without = _generate(minify=minify, key="")
    given = without + 'new Pulsegate.Metrics({ key: "other" });'
    assert javascript.run(given, "Pulsegate.Client.options") == {**filled_in, "key": "other"}
    assert javascript.run(without, "[typeof pulsegate, Object.keys(Pulsegate)]") == [
        "undefined",
        ["Client", "Metrics"],
    ]


def test_a_metric_never_takes_the_place_of_a_member(javascript: Node) -> None:
    names = ["record", "flush", "close", "stats", "then", "constructor", "toString", "has_own_property", "_x"]
    source = _generate(*(metric(name, age=age) for age, name in enumerate(names)))
    methods = [
        "record_",
        "flush_",
        "close_",
        "stats_",
        "then_",
        "constructor_",
        "toString_",
        "has_own_property_",
        "metric__x_",
    ]
    calls = javascript.run(
        source + "".join(f"pulsegate.{method}();" for method in methods), "Pulsegate.Client.calls.map(([name]) => name)"
    )
    assert calls == names


def test_the_runtime_has_no_public_member_that_metrics_could_replace(javascript: Node) -> None:
    members = javascript.run(
        samples.real_runtime(Language.JAVASCRIPT, minify=True),
        f"""(() => {{
            const client = new PulsegateRuntime.Client({{ endpoint: "{ENDPOINT}", key: "{KEY}" }});
            const found = new Set();
            for (let object = client; object; object = Object.getPrototypeOf(object)) {{
                Object.getOwnPropertyNames(object).forEach((name) => found.add(name));
            }}
            void client.close(0);
            return [...found].filter((name) => !name.startsWith("_"));
        }})()""",
    )
    source = _generate(*(metric(name) for name in members))
    replaced = javascript.run(
        source,
        f"{json.dumps(members)}.filter((name) => name !== 'constructor'"
        " && Object.hasOwn(Pulsegate.Metrics.prototype, name))",
    )
    assert {"record", "flush", "close", "stats"} <= set(members)
    assert replaced == []


@settings(max_examples=100)
@given(definitions=samples.metrics)
def test_whatever_definitions_say_they_stay_text(javascript: Node, definitions: list[Metric]) -> None:
    for minify in (False, True):
        source = _generate(*definitions, minify=minify)
        assert not _UNFIT_FOR_A_PAGE.search(source)
        called = javascript.run(
            f"const before = Object.getOwnPropertyNames(globalThis); {source}",
            """(() => {
                const methods = Object.getOwnPropertyNames(Pulsegate.Metrics.prototype).slice(1);
                methods.forEach((method) => pulsegate[method]({ a: "b" }, 2));
                const globals = Object.getOwnPropertyNames(globalThis).filter((name) => !before.includes(name));
                return { globals, calls: Pulsegate.Client.calls, members: methods.length };
            })()""",
        )
        assert called["globals"] == ["Pulsegate", "pulsegate"]
        assert called["members"] == len(definitions)
        ordered = sorted(definitions, key=lambda one: one.name)
        assert called["calls"] == [[one.name, 2, {"a": "b"}, None, one.type.value] for one in ordered]


@given(text=samples.hostile_text)
def test_a_literal_is_the_text_and_fits_into_a_page_and_a_comment(javascript: Node, text: str) -> None:
    written = literal(text)
    assert javascript.run(f"/* {written} */ var it = {written};", "it") == text
    assert not _UNFIT_FOR_A_PAGE.search(written)
    assert "*/" not in written
