"""Clients of a Pushgateway, with the gateway's address and a project's key."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.error import HTTPError

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.exposition import basic_auth_handler, delete_from_gateway, push_to_gateway, pushadd_to_gateway

from tests.e2e.api import Project

pytestmark = pytest.mark.timeout(120)

BOUNDS = [0.1, 0.5, 1.0]


def pushing(project: Project) -> Callable[..., Callable[[], None]]:
    """What makes `prometheus_client` send the project's key, as the password of any user."""

    def handler(url: str, method: str, timeout: float, headers: list[Any], data: bytes) -> Callable[[], None]:
        return basic_auth_handler(url, method, timeout, headers, data, "anybody", project.secret_key)

    return handler


class Job:
    """A run of a batch job with the metrics of `prometheus_client`."""

    def __init__(self, project: Project) -> None:
        self.registry = CollectorRegistry()
        self.rows = Counter("rows", "Rows.", ["kind"], registry=self.registry)
        self.seen = Gauge("last_seen", "When.", registry=self.registry)
        self.took = Histogram("took_seconds", "Time.", buckets=BOUNDS, registry=self.registry)
        self.size = Summary("size_bytes", "Size.", registry=self.registry)
        self._gateway: Mapping[str, Any] = {"gateway": project.api.base_url, "job": "nightly/one"}
        self._sending: Mapping[str, Any] = {"grouping_key": {"instance": "db 1"}, "handler": pushing(project)}

    def work(self, rows: int, level: float) -> None:
        self.rows.labels("new").inc(rows)
        self.seen.set(level)
        for _ in range(rows):
            self.took.observe(0.25)
            self.size.observe(10)

    async def push(self) -> None:
        await asyncio.to_thread(
            push_to_gateway, **self._gateway, registry=self.registry, **self._sending, compression="gzip"
        )

    async def push_add(self) -> None:
        await asyncio.to_thread(pushadd_to_gateway, **self._gateway, registry=self.registry, **self._sending)

    async def delete(self) -> None:
        await asyncio.to_thread(delete_from_gateway, **self._gateway, **self._sending)


async def test_prometheus_client_pushes_by_changing_the_address(project: Project) -> None:
    definitions: list[tuple[str, str, dict[str, Any]]] = [
        ("rows_total", "counter", {"labels": [{"name": "kind"}, {"name": "job"}, {"name": "instance"}]}),
        ("last_seen", "gauge", {}),
        ("took_seconds", "histogram", {"unit": "seconds", "buckets": BOUNDS}),
        ("size_bytes", "summary", {"unit": "bytes"}),
    ]
    for name, kind, spec in definitions:
        await project.define(name, kind, **spec)
    first = Job(project)
    first.work(3, 7)
    await first.push()
    await first.push()
    first.work(2, 5)
    await first.push_add()
    await project.shows('rows_total{kind="new", job="nightly/one", instance="db 1"}', 5)
    await first.delete()
    again = Job(project)  # the next run begins at zero, and counts on top
    again.work(5, 9)
    await again.push()
    again.work(1, 8)
    await again.push()
    await project.shows("rows_total", 11)
    await project.shows("last_seen", 8)
    await project.shows("took_seconds_count", 11)
    assert await project.value('took_seconds_bucket{le="0.5"}') == 11
    assert await project.value("size_bytes_sum") == 110
    assert await project.value("size_bytes_count") == 11


async def test_a_push_of_which_nothing_can_be_taken_fails_at_the_client(project: Project) -> None:
    with pytest.raises(HTTPError) as caught:
        await Job(project).push()
    assert caught.value.code == 400
    assert json.load(caught.value)["error"]["details"]["rejected"][0]["code"] == "METRIC_NOT_DEFINED"


async def test_a_project_may_let_data_define(project: Project) -> None:
    api, path = project.api, f"/api/v1/projects/{project.id}"
    assert await api.expect(200, "GET", f"{path}/settings", credential=project.token) == {"autoDefinition": False}
    await api.expect(200, "PUT", f"{path}/settings", {"autoDefinition": True}, credential=project.token)
    job = Job(project)
    job.work(3, 7)
    await job.push()
    await project.shows('rows_total{kind="new"}', 3)
    await project.shows("took_seconds_count", 3)
    metrics = (await api.expect(200, "GET", f"{path}/metrics", credential=project.token))["items"]
    assert {(each["name"], each["type"], each["provisional"]) for each in metrics} == {
        ("rows_total", "counter", True),
        ("last_seen", "gauge", True),
        ("took_seconds", "histogram", True),
        ("size_bytes", "summary", True),
    }
    rows = next(each for each in metrics if each["name"] == "rows_total")
    confirmed = await api.expect(
        200,
        "PUT",
        f"{path}/metrics/{rows['id']}",
        {"name": "rows_total", "type": "counter", "help": "Rows read.", "labels": [{"name": "kind"}]},
        credential=project.token,
        headers={"If-Match": '"1"'},
    )
    assert (confirmed["provisional"], confirmed["version"]) == (False, 2)
    job.work(1, 7)
    await job.push()
    await project.shows('rows_total{kind="new"}', 4)
