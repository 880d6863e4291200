"""What goes into a client: validated, normalised, and identified by its content."""

import pytest

from chassis.errors import Invalid
from contracts.pulsegate.config.v1 import definitions_pb2 as pb
from services.codegen.clients import FetchedDefinitions
from services.codegen.domain import Artifact, Definitions, Label, Language, Options, Packaging, input_hash, is_sha256
from services.codegen.errors import DefinitionNotRenderable
from tests.unit.codegen.samples import ENDPOINT, KEY, PROJECT, metric


def _options(**changes: object) -> Options:
    given: dict[str, object] = {
        "language": Language.JAVASCRIPT,
        "endpoint": ENDPOINT,
        "key": KEY,
        "minify": True,
        "packaging": Packaging.SCRIPT,
    }
    return Options.of(**{**given, **changes})  # type: ignore[arg-type]


def test_definitions_are_sorted_by_name_and_their_fingerprint_does_not_depend_on_the_order() -> None:
    one, two = (pb.Metric(spec=pb.MetricSpec(name=name, type=pb.METRIC_TYPE_GAUGE)) for name in ("a_level", "b_level"))
    forth, back = (
        FetchedDefinitions(project_id=PROJECT, metrics=metrics, digest="").decode()
        for metrics in ([one, two], [two, one])
    )
    assert forth.fingerprint == back.fingerprint
    assert [each.name for each in back.metrics] == ["a_level", "b_level"]
    assert list(forth.metrics) == list(back.metrics)


@pytest.mark.parametrize(
    "changed",
    [
        metric("a_total", help="Another help."),
        metric("a_total", unit="seconds"),
        metric("a_total", "gauge"),
        metric("a_total", "counter", Label(name="plan")),
        metric("a_total", "counter", Label(name="plan", required=True)),
        metric("a_total", "counter", Label(name="plan", values=("free",))),
        metric("a_total", "counter", Label(name="plan", pattern="[a-z]")),
        metric("b_total"),
    ],
)
def test_the_fingerprint_changes_with_whatever_code_depends_on(changed: object) -> None:
    fingerprints = [
        Definitions.of(PROJECT, [one]).fingerprint  # type: ignore[list-item]
        for one in (metric("a_total"), metric("a_total", "counter", Label(name="plan", values=("pro",))), changed)
    ]
    assert len(set(fingerprints)) == 3


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a.b", "a b", "a\n", "é", "a:b", "a;import os"])
def test_a_metric_whose_name_is_none_in_code_is_not_rendered(name: str) -> None:
    with pytest.raises(DefinitionNotRenderable) as refused:
        Definitions.of(PROJECT, [metric(name)])
    assert refused.value.code == "INTERNAL"


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a\n", "__a", "é"])
def test_a_label_whose_name_is_none_in_code_is_not_rendered(name: str) -> None:
    with pytest.raises(DefinitionNotRenderable):
        Definitions.of(PROJECT, [metric("a_total", "counter", Label(name=name))])


def test_names_that_are_there_twice_are_not_rendered() -> None:
    with pytest.raises(DefinitionNotRenderable):
        Definitions.of(PROJECT, [metric("a_total"), metric("a_total")])
    with pytest.raises(DefinitionNotRenderable):
        Definitions.of(PROJECT, [metric("a_total", "counter", Label(name="x"), Label(name="x"))])


@pytest.mark.parametrize(
    "endpoint",
    ["https://metrics.example.com", "http://127.0.0.1:8080", "http://[::1]:8080", "https://example.com/pulse-gate/v~1"],
)
def test_an_endpoint_is_an_address_perhaps_with_a_path(endpoint: str) -> None:
    assert _options(endpoint=endpoint).endpoint == endpoint
    assert _options(endpoint=endpoint + "/").endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        *("", "example.com", "ftp://example.com", "https://", "https://a b", "https://a\n", 'https://a"', "https://a'"),
        *(
            "https://a</script>",
            "https://a\\",
            "https://a?b",
            "https://a#b",
            "https://u:p@a",
            "https://é.example",
            " https://a",
        ),
        "https://example.com/" + "a" * 2000,
    ],
)
def test_nothing_else_becomes_an_endpoint(endpoint: str) -> None:
    with pytest.raises(Invalid) as refused:
        _options(endpoint=endpoint)
    assert refused.value.details == {
        "fields": {"endpoint": "must be an http or https address without user, query or fragment"}
    }


@pytest.mark.parametrize("key", ["sk_0123456789abcdef", "pk_", "pk_a b", 'pk_a"', "pk_a\n", "x", "pk_" + "a" * 201])
def test_only_a_publishable_key_is_embedded(key: str) -> None:
    with pytest.raises(Invalid) as refused:
        _options(key=key)
    assert refused.value.details is not None
    assert set(refused.value.details["fields"]) == {"publishableKey"}


def test_a_refused_key_is_not_repeated() -> None:
    with pytest.raises(Invalid) as refused:
        _options(key="sk_0123456789abcdef")
    assert "0123456789abcdef" not in refused.value.message


def test_python_knows_neither_minifying_nor_packaging() -> None:
    options = _options(language=Language.PYTHON)
    assert options == _options(language=Language.PYTHON, minify=False, packaging=Packaging.MODULE)


def test_an_input_hash_stands_for_definitions_options_and_generator() -> None:
    hashes = {
        input_hash("a", _options(), "1"),
        input_hash("b", _options(), "1"),
        input_hash("a", _options(key=""), "1"),
        input_hash("a", _options(endpoint="https://other.example.com"), "1"),
        input_hash("a", _options(minify=False), "1"),
        input_hash("a", _options(packaging=Packaging.MODULE), "1"),
        input_hash("a", _options(language=Language.PYTHON), "1"),
        input_hash("a", _options(), "2"),
    }
    assert len(hashes) == 8
    assert all(map(is_sha256, hashes))


def test_an_artifact_is_known_by_the_hash_of_its_bytes() -> None:
    artifact = Artifact.of(["é"], content_type="text/plain", file_name="a.txt")
    assert artifact.content == b"\xc3\xa9"
    assert artifact.sha256 == "4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c"
