"""A metric's whole path: receiver, log, aggregator, Prometheus."""

from chassis.ids import uuid7
from tests.integration.ingest.pipeline import Pipeline


async def test_increments_of_many_batches_become_one_cumulative_counter(pipeline: Pipeline) -> None:
    pipeline.define("orders_total", labels=[{"name": "plan", "required": True}])
    async with pipeline.running():
        for _ in range(5):
            answer = await pipeline.send(
                {"name": "orders_total", "value": 2, "labels": {"plan": "pro"}},
                {"name": "orders_total", "value": 1, "labels": {"plan": "free"}},
            )
            assert (answer.accepted, list(answer.rejected)) == (2, [])
        await pipeline.expect('orders_total{plan="pro", $project}', 10)
        await pipeline.expect('orders_total{plan="free", $project}', 5)
        series = (await pipeline.query('orders_total{plan="pro", $project}'))[0]["metric"]
        assert series == {
            "__name__": "orders_total",
            "plan": "pro",
            "tenant_id": pipeline.tenant_id,
            "project_id": pipeline.project_id,
        }


async def test_a_batch_sent_again_is_counted_once(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    producer = str(uuid7())
    async with pipeline.running():
        first = await pipeline.send({"name": "orders_total", "value": 3}, producer=producer, sequence=1)
        again = await pipeline.send({"name": "orders_total", "value": 3}, producer=producer, sequence=1)
        await pipeline.send({"name": "orders_total", "value": 4}, producer=producer, sequence=2)
        assert (first.accepted, first.duplicate) == (1, False)
        assert (again.accepted, again.duplicate) == (1, True)
        await pipeline.expect("orders_total{$project}", 7)
