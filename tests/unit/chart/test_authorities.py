"""Authorities of the installation's own, in every pod of Pulsegate."""

import helm_python
import pytest

from tests.chart_rendering import Object, Pod, Rendered, case, render

_FOLDER = "/run/authorities/pulsegate"
_VARIABLES = ("SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")


def _volumes(pod: Pod) -> list[Object]:
    return [volume for volume in pod.spec["volumes"] if volume["name"] == "authorities"]


@pytest.mark.parametrize(
    ("name", "key", "source"),
    [
        ("production", "bundle.pem", {"configMap": {"name": "company-authorities"}}),
        ("vault", "ca.crt", {"secret": {"secretName": "company-authorities", "defaultMode": 0o440}}),
    ],
)
def test_every_pod_is_told_of_the_bundle_that_it_mounts(name: str, key: str, source: Object) -> None:
    rendered = case(name)
    pods = [*rendered.services(), *rendered.jobs()]
    assert len(pods) == 11
    ((kind, named),) = source.items()
    for pod in pods:
        assert {pod.environment[variable] for variable in _VARIABLES} == {f"{_FOLDER}/{key}"}
        assert _volumes(pod) == [{"name": "authorities", kind: {**named, "items": [{"key": key, "path": key}]}}]
        mount = {"name": "authorities", "mountPath": _FOLDER, "readOnly": True}
        assert mount in pod.container["volumeMounts"]


def test_without_one_pods_believe_what_their_image_does() -> None:
    rendered: Rendered = case("defaults")
    for pod in rendered.pods():
        assert not _volumes(pod)
        assert not set(_VARIABLES) & set(pod.environment)


def test_it_is_in_one_place() -> None:
    with pytest.raises(helm_python.HelmError, match="not both"):
        render({"trustedAuthorities": {"configMap": "one", "secret": "another"}})
