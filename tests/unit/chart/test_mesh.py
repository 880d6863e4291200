"""In a mesh the same paths are open as in the network, and no others; experiments hurt what they name.

The schemas of these objects come with Istio and Chaos Mesh, and are not to be had without them: only their shape is
looked at.
"""

import json

import pytest

from tests.chart_rendering import NAMESPACE, RELEASE, Object, Rendered, case, render
from tests.unit.chart.test_network import calls
from tests.unit.chart.test_pods import seconds_to_end

_SELECTED = {"app.kubernetes.io/name": "pulsegate", "app.kubernetes.io/instance": RELEASE}
_COMPONENT = "app.kubernetes.io/component"
_COMPONENTS = {"gateway", "auth", "config", "codegen", "receiver", "aggregator", "canary"}


@pytest.fixture(scope="module")
def rendered() -> Rendered:
    return case("mesh")


def _component(selector: Object) -> str:
    assert selector.items() >= _SELECTED.items()
    return str(selector[_COMPONENT])


def test_services_reach_those_that_they_call_by_their_identity_alone(rendered: Rendered) -> None:
    allowed: dict[str, set[str]] = {}
    for policy in rendered.objects("AuthorizationPolicy"):
        assert policy["spec"]["action"] == "ALLOW"
        callee = _component(policy["spec"]["selector"]["matchLabels"])
        for rule in policy["spec"]["rules"]:
            (to,) = rule["to"]
            if to["operation"]["ports"] == ["9000"]:
                (source,) = rule["from"]
                allowed[callee] = set(source["source"]["principals"])
            else:
                assert to["operation"]["ports"] in (["8080"], ["8081"])
                assert "from" not in rule
    identity = f"example.org/ns/{NAMESPACE}/sa/{RELEASE}-"
    expected = {callee: {identity + caller for caller in calls() if callee in calls()[caller]} for callee in calls()}
    assert allowed == {callee: callers for callee, callers in expected.items() if callers}


def test_only_what_clients_and_prometheus_reach_may_be_without_mutual_tls(rendered: Rendered) -> None:
    specs = [each["spec"] for each in rendered.objects("PeerAuthentication")]
    assert {_component(spec["selector"]["matchLabels"]) for spec in specs} == _COMPONENTS
    for spec in specs:
        assert spec["mtls"] == {"mode": "STRICT"}
        open_ports = {8080, 8081} if spec["selector"]["matchLabels"][_COMPONENT] == "gateway" else {8081}
        assert spec["portLevelMtls"] == {port: {"mode": "PERMISSIVE"} for port in open_ports}


def test_identities_are_those_of_the_pods_accounts(rendered: Rendered) -> None:
    for pod in rendered.services():
        assert pod.labels["sidecar.istio.io/inject"] == "true"
        assert pod.spec["serviceAccountName"] == f"{RELEASE}-{pod.component}"
    others = {pod.owner["kind"]: pod.labels.get("sidecar.istio.io/inject") for pod in rendered.pods() if not pod.track}
    assert others == {"Job": "false"}, "also where the namespace asks for sidecars: a Job with one never ends"


def test_sidecars_outlive_what_an_end_takes(rendered: Rendered) -> None:
    for pod in rendered.services():
        config = json.loads(pod.owner["spec"]["template"]["metadata"]["annotations"]["proxy.istio.io/config"])
        lives = int(config["terminationDrainDuration"].removesuffix("s"))
        assert seconds_to_end(pod) < lives < pod.spec["terminationGracePeriodSeconds"]


def test_a_sidecar_may_be_configured_otherwise() -> None:
    own = {"proxy.istio.io/config": "{}"}
    for pod in render({"istio": {"enabled": True}, "defaults": {"podAnnotations": own}}).services():
        assert pod.owner["spec"]["template"]["metadata"]["annotations"].items() >= own.items()


def test_sidecars_reach_their_control_plane(rendered: Rendered) -> None:
    for component in _COMPONENTS:
        egress = rendered.named("NetworkPolicy", f"{RELEASE}-{component}")["spec"]["egress"]
        assert [rule for rule in egress if rule["ports"] == [{"protocol": "TCP", "port": 15012}]]


def test_experiments_hurt_one_pod_of_what_they_name(rendered: Rendered) -> None:
    done = set()
    for schedule in rendered.objects("Schedule"):
        spec = schedule["spec"]
        field = spec["type"][0].lower() + spec["type"][1:]
        assert set(spec) == {"schedule", "concurrencyPolicy", "historyLimit", "type", field}
        what = spec[field]
        assert what["mode"] == "one"
        assert what["selector"]["namespaces"] == [NAMESPACE]
        component = _component(what["selector"]["labelSelectors"])
        assert [pod for pod in rendered.services() if pod.is_selected_by(what["selector"]["labelSelectors"])]
        assert len(spec["schedule"].split()) == 5
        done.add((spec["type"], what.get("action", ""), component))
    killed = {("PodChaos", "pod-kill", component) for component in _COMPONENTS - {"canary"}}
    cut_off = {("NetworkChaos", "loss", component) for component in ("receiver", "aggregator")}
    slow = {("NetworkChaos", "delay", component) for component in ("gateway", "receiver")}
    assert done == killed | cut_off | slow | {("TimeChaos", "", "aggregator")}
    clock = rendered.named("Schedule", f"{RELEASE}-wrong-clock-aggregator")["spec"]["timeChaos"]
    assert (clock["timeOffset"], clock["duration"]) == ("5s", "60s")


def test_nothing_of_this_is_there_unless_it_is_asked_for() -> None:
    defaults = render({})
    for kind in ("PeerAuthentication", "AuthorizationPolicy", "Schedule"):
        assert defaults.objects(kind) == []
