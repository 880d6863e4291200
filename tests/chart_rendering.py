"""The Helm chart, rendered as Helm does it, without a cluster.

rendered = case("production")                   the values in ci/production-values.yaml; not to be changed
rendered = render({"logLevel": "debug"})        any values
rendered.objects("Service")                     every object of a kind
rendered.named("Deployment", "acme-gateway")    one of them
rendered.pods()                                 every pod that a Deployment, a StatefulSet or a Job makes
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import helm_python
import yaml

from deploy.local.layout import CHECKOUT

CHART = CHECKOUT / "deploy" / "helm" / "pulsegate"
RELEASE = "pulsegate"
NAMESPACE = "metrics"

Values = dict[str, Any]
Object = dict[str, Any]

#: The values files below `ci/`, by name.
CASES: dict[str, Values] = {
    path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text())
    for path in sorted((CHART / "ci").iterdir())
}


@dataclass(frozen=True, kw_only=True)
class Pod:
    """What one template of a pod says."""

    owner: Object
    labels: Mapping[str, str]
    spec: Object

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def track(self) -> str | None:
        """None for what belongs to no track: migrations and servers for evaluation."""
        return self.labels.get("pulsegate.dev/track")

    @property
    def container(self) -> Object:
        """Its only one."""
        (container,) = self.spec["containers"]
        found: Object = container
        return found

    @property
    def environment(self) -> dict[str, str]:
        return {variable["name"]: variable["value"] for variable in self.container.get("env", [])}

    def is_selected_by(self, labels: Mapping[str, str]) -> bool:
        return labels.items() <= self.labels.items()


@dataclass(frozen=True)
class Rendered:
    """Every object of one rendering, in the order of the templates."""

    all: tuple[Object, ...]

    def objects(self, kind: str) -> list[Object]:
        return [each for each in self.all if each["kind"] == kind]

    def named(self, kind: str, name: str) -> Object:
        (found,) = [each for each in self.objects(kind) if each["metadata"]["name"] == name]
        return found

    def pods(self) -> list[Pod]:
        kinds = ("Deployment", "StatefulSet", "Job")
        return [_pod(owner) for owner in self.all if owner["kind"] in kinds]

    def jobs(self) -> list[Pod]:
        """The pods of what Helm runs before anything else."""
        return [pod for pod in self.pods() if pod.owner["kind"] == "Job"]

    def services(self) -> list[Pod]:
        """The pods of Pulsegate's own services."""
        return [pod for pod in self.pods() if pod.track]


def _pod(owner: Object) -> Pod:
    template = owner["spec"]["template"]
    return Pod(owner=owner, labels=template["metadata"]["labels"], spec=template["spec"])


@functools.cache
def case(name: str) -> Rendered:
    """What the values file of that name makes."""
    return render(CASES[name])


def render(values: Values) -> Rendered:
    """Raises helm_python.HelmError where Helm refuses the values or a template."""
    chart = helm_python.Chart.load(CHART)
    chart.validate_schema(values)
    files = chart.render(values, name=RELEASE, namespace=NAMESPACE, is_install=True)
    return Rendered(tuple(_objects(files)))


def _objects(files: Mapping[str, str]) -> Iterator[Object]:
    for path, text in files.items():
        if path.endswith(".yaml"):
            yield from (each for each in yaml.safe_load_all(text) if each)


def lint(values: Values) -> list[str]:
    """What `helm lint --strict` has to say."""
    report = helm_python.lint(CHART, values, strict=True, namespace=NAMESPACE)
    said: list[str] = [message["error"] for message in report["messages"] if message["severity"] > 1]
    return [*said, *report["errors"]]
