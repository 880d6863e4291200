"""The pods that tests run are processes of this machine, beside whatever else listens on it."""

import base64
from pathlib import Path

from tests.chart_rendering import Object, Pod, case
from tests.kubelet import Cluster, Secrets


def _volume(pod: Pod, name: str) -> Object:
    (found,) = (volume for volume in pod.spec["volumes"] if volume["name"] == name)
    return dict(found)


def test_a_port_that_is_taken_is_another_one_wherever_the_chart_says_it(tmp_path: Path) -> None:
    rendered = case("evaluation")
    made = rendered.named("Secret", "pulsegate-evaluation")["data"]
    secrets: Secrets = {"pulsegate-evaluation": {key: base64.b64decode(text).decode() for key, text in made.items()}}
    cluster = Cluster(rendered, secrets, tmp_path, is_free=lambda port: port != 6379)
    wanted = ("evaluation-valkey", "evaluation-nats", "gateway")
    pods = {placed.pod.component: placed for placed in cluster.place(rendered.pods()) if placed.pod.component in wanted}
    valkey, gateway = pods["evaluation-valkey"], pods["gateway"]
    port = valkey.port("valkey")
    assert port != 6379
    assert cluster.behind("pulsegate-evaluation-valkey", port) == [f"{valkey.address}:{port}"]
    assert f"port {port}\n" in dict(cluster.files(_volume(valkey.pod, "configuration")))["valkey.conf"]
    assert dict(cluster.files(_volume(gateway.pod, "secrets")))["valkeyUrl"].endswith(f":{port}/0")
    assert pods["evaluation-nats"].port("nats") == 4222
