"""Generated Python, executed: what each method records, and that no text of a definition becomes code."""

import ast
import inspect
import sys
import unicodedata
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings

from services.codegen.domain import Label, Language, Metric
from services.codegen.outputters.python import literal
from tests.unit.codegen import samples
from tests.unit.codegen.samples import ENDPOINT, KEY, generate, metric


class Method(NamedTuple):
    """A generated method, as its source says."""

    name: str
    #: label → parameter
    parameters: dict[str, str]


def _methods(source: str) -> dict[str, Method]:
    """The methods of `Metrics` by the metric that each records."""
    [metrics] = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Metrics"]
    found = {}
    for method in metrics.body:
        if isinstance(method, ast.FunctionDef) and method.name != "__init__":
            call = method.body[-1].value  # type: ignore[attr-defined]
            labels = [given.args[0] for given in call.args[2:]]
            names = [
                (key.value, value.id) for given in labels for key, value in zip(given.keys, given.values, strict=True)
            ]
            found[call.args[0].value] = Method(method.name, dict(names))
    return found


def _load(source: str) -> dict[str, Any]:
    module: dict[str, Any] = {"__name__": "pulsegate_metrics"}
    exec(compile(source, "pulsegate_metrics.py", "exec"), module)  # noqa: S102 - this is what the test is about
    return module


def test_each_type_has_its_signature() -> None:
    plan, region = Label(name="plan", required=True, values=("free", "pro")), Label(name="region")
    client = _load(
        generate(
            metric("checkout_completed_total", "counter", plan, region),
            metric("queue_depth", "gauge", region),
            metric("page_load_seconds", "histogram", plan),
            metric("job_seconds", "summary"),
        )
    )["Metrics"]
    signatures = {name: str(inspect.signature(getattr(client, name))) for name in vars(client) if name[0] != "_"}
    observations = "value: 'Union[float, Sequence[float]]'"
    assert signatures == {
        "checkout_completed_total": "(self, value: 'float' = 1, *, plan: \"Literal['free', 'pro']\","
        " region: 'Optional[str]' = None) -> 'None'",
        "queue_depth": "(self, value: 'float', *, region: 'Optional[str]' = None,"
        " timestamp: 'Optional[float]' = None) -> 'None'",
        "page_load_seconds": f"(self, {observations}, *, plan: \"Literal['free', 'pro']\") -> 'None'",
        "job_seconds": f"(self, {observations}) -> 'None'",
    }


def test_a_method_records_its_metric_and_leaves_out_labels_that_are_not_given() -> None:
    module = _load(
        generate(
            metric("jobs_total", "counter", Label(name="class", required=True), Label(name="value")),
            metric("depth", "gauge"),
        )
    )
    metrics = module["Metrics"]()
    metrics.jobs_total(class_="nightly")
    metrics.jobs_total(3, class_="nightly", value_="")
    metrics.depth(5, timestamp=1.5)
    assert metrics.calls == [
        ("jobs_total", 1, {"class": "nightly"}, None, "counter"),
        ("jobs_total", 3, {"class": "nightly", "value": ""}, None, "counter"),
        ("depth", 5, {}, 1.5, "gauge"),
    ]
    assert module["__all__"] == ["Client", "Metrics"]


def test_a_wrong_call_raises_nothing_and_is_counted() -> None:
    metrics = _load(
        generate(metric("orders_total", "counter", Label(name="plan", required=True)), metric("depth", "gauge"))
    )["Metrics"]()
    metrics.orders_total()
    metrics.orders_total(plan="pro", colour="red")
    metrics.orders_total(1, 2, 3)
    metrics.depth(1, self=2)
    assert [(name, str(error).partition(") ")[2]) for name, error in metrics.calls] == [
        ("orders_total", "missing 1 required keyword-only argument: 'plan'"),
        ("orders_total", "got an unexpected keyword argument 'colour'"),
        ("orders_total", "takes from 1 to 2 positional arguments but 4 were given"),
        ("depth", "got multiple values for argument 'self'"),
    ]


def test_the_real_runtime_counts_a_wrong_call_and_tells_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pulsegate_metrics", ModuleType("pulsegate_metrics"))  # dataclasses look it up
    definition = metric("orders_total", "counter", Label(name="plan", required=True))
    metrics = _load(generate(definition, runtime=samples.real_runtime(Language.PYTHON)))["Metrics"]()
    metrics.orders_total(1, "pro", colour="red")
    metrics.close(30)
    assert metrics.stats.dropped == {"invalid": 1}
    assert "(the latest: 'orders_total': " in caplog.text
    assert "unexpected keyword argument 'colour'" in caplog.text


def test_the_help_is_the_documentation() -> None:
    client = _load(generate(metric("jobs_seconds", "gauge", unit="seconds", help="How long\n\n jobs take.")))["Metrics"]
    assert (inspect.getdoc(client.jobs_seconds) or "").splitlines()[0] == "How long jobs take."
    assert "Gauge in seconds" in client.jobs_seconds.__doc__


def test_the_constructor_takes_what_the_runtime_takes_with_the_endpoint_and_the_key_filled_in() -> None:
    with_key, without = _load(generate())["Metrics"], _load(generate(key=""))["Metrics"]
    parameters = inspect.signature(with_key.__init__).parameters
    assert list(parameters) == ["self", "key", "endpoint", "timeout_seconds", "on_drop"]
    assert (parameters["key"].default, parameters["endpoint"].default) == (KEY, ENDPOINT)
    assert inspect.signature(without.__init__).parameters["key"].default is inspect.Parameter.empty


def test_a_metric_never_takes_the_place_of_a_member_of_the_runtime() -> None:
    names = ["record", "flush", "stats", "calls", "_given", "str", "class"]
    client = _load(generate(*(metric(name, age=age) for age, name in enumerate(names))))["Metrics"]
    metrics = client()
    for name in ("record_", "flush_", "stats_", "calls_", "metric__given", "str_", "class_"):
        getattr(metrics, name)()
    assert [call[0] for call in metrics.calls] == names


def test_it_runs_on_python_3_8() -> None:
    source = generate(
        metric("jobs_total", "counter", Label(name="plan", values=("a",))),
        runtime=samples.real_runtime(Language.PYTHON),
    )
    ast.parse(source, feature_version=(3, 8))


@settings(max_examples=100)
@given(samples.metrics)
def test_whatever_definitions_say_they_stay_text(definitions: list[Metric]) -> None:
    source = generate(*definitions)
    assert _shape(source) == _shape(generate(*map(_harmless, definitions)))

    methods, metrics = _methods(source), _load(source)["Metrics"]()
    assert set(methods) == {one.name for one in definitions}
    for one in definitions:
        labels = {label.name: (*label.values, "x")[0] for label in one.labels}
        given = {methods[one.name].parameters[name]: value for name, value in labels.items()}
        getattr(metrics, methods[one.name].name)(2, **given)
        assert metrics.calls.pop() == (one.name, 2, labels, None, one.type.value)


def _harmless(one: Metric) -> Metric:
    labels = tuple(
        Label(name=label.name, required=label.required, values=tuple(map(str, range(len(label.values)))))
        for label in one.labels
    )
    return Metric(id=one.id, name=one.name, type=one.type, help="x", unit="", labels=labels)


def _shape(source: str) -> str:
    """The tree without any constant: what the code does, whatever it says."""

    class Blank(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.Constant:
            return ast.Constant(type(node.value).__name__)

    return ast.dump(Blank().visit(ast.parse(source)))


@given(samples.hostile_text)
def test_a_literal_is_the_text_and_shows_what_is_invisible(text: str) -> None:
    written = literal(text)
    assert ast.literal_eval(written) == text
    assert not [character for character in written if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")]


def test_a_long_help_is_wrapped() -> None:
    source = generate(metric("jobs", "gauge", help="Words and more words. " * 50))
    assert max(map(len, source.splitlines())) <= 120
