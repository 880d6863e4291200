"""The paths of pushes: the labels that Pushgateway would find in them."""

import pytest

from chassis.errors import Malformed
from services.gateway.http_api.pushes import grouping_labels


@pytest.mark.parametrize(
    ("path", "labels"),
    [
        ("job/nightly", ["job", "nightly"]),
        ("job/nightly/", ["job", "nightly"]),
        ("job/a%20b%2Fc/instance/1.2.3.4:80", ["job", "a b/c", "instance", "1.2.3.4:80"]),
        ("job@base64/bmlnaHRseQ/path@base64/L3Nydi9hYg==", ["job", "nightly", "path", "/srv/ab"]),
        ("job/x/empty@base64/=", ["job", "x", "empty", ""]),
        ("job/%C3%A9t%C3%A9/b@base64/w6l0w6k", ["job", "été", "b", "été"]),
    ],
)
def test_labels_are_read(path: str, labels: list[str]) -> None:
    assert grouping_labels(path) == labels


@pytest.mark.parametrize(
    "path",
    [
        "job",
        "job/",
        "job//",
        "job@base64/=",
        "job/x/instance",
        "job/x//y",
        "job/x/__name__/y",
        "job/x/1a/y",
        "job/x/job/y",
        "job/x/a@base64/%25",
        "job/x/a@base64/A",
        "job/x/a@base64/_w",
        "job/%ff",
        "job/x" + "".join(f"/l{number}/v" for number in range(64)),
    ],
)
def test_paths_that_are_none_are_refused(path: str) -> None:
    with pytest.raises(Malformed):
        grouping_labels(path)
