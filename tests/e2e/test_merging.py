"""Gauges of several clients and summaries, through the public interface."""

import pytest

from chassis.ids import uuid7
from tests.e2e.api import Project

pytestmark = pytest.mark.timeout(120)


async def test_levels_of_several_clients_are_merged_by_the_definitions_rule(project: Project) -> None:
    for rule in ("min", "max", "sum"):
        assert (await project.define(f"{rule}_sessions", "gauge", gaugeMerge=rule))["gaugeMerge"] == rule
    for levels in ((3, 5), (4, 1), (2.5,)):
        producer = str(uuid7())
        for sequence, level in enumerate(levels, start=1):
            metrics = [{"name": f"{rule}_sessions", "value": level} for rule in ("min", "max", "sum")]
            answer = await project.send(*metrics, producer=producer, sequence=sequence)
            assert answer.status == 202, answer.text
    for rule, value in {"min": 1, "max": 5, "sum": 8.5}.items():
        await project.shows(f"{rule}_sessions", value)


async def test_a_summary_shows_the_quantiles_of_its_definition(project: Project) -> None:
    await project.define("size_bytes", "summary", unit="bytes", objectives=[0.25, 0.5])
    answer = await project.send({"name": "size_bytes", "value": [-100, 0, 0, 100, 1e300]})
    assert answer.status == 202, answer.text
    await project.shows("size_bytes_count", 5)
    await project.shows('size_bytes{quantile="0.25"}', 0)
    await project.shows('size_bytes{quantile="0.5"}', 0)
    assert await project.value("count(size_bytes)") == 2


@pytest.mark.parametrize(
    ("kind", "member", "before", "after"),
    [("gauge", "gaugeMerge", "sum", "max"), ("summary", "objectives", [0.5], [0.5, 0.9])],
)
async def test_what_series_are_made_by_cannot_change(
    project: Project, kind: str, member: str, before: object, after: object
) -> None:
    metric = await project.define(f"fixed_{kind}", kind, **{member: before})
    changed = {"name": metric["name"], "type": kind, "help": "Changed.", member: after}
    answer = await project.api.call(
        "PUT",
        f"/api/v1/projects/{project.id}/metrics/{metric['id']}",
        changed,
        credential=project.token,
        headers={"If-Match": '"1"'},
    )
    assert (answer.status, answer.code) == (409, "CONFLICT"), answer.text
    assert member in answer.json["error"]["details"]["fields"]
