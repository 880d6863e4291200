"""Requests through the other doors: receiver, log, aggregator, Prometheus."""

import asyncio
import gzip
import json
import signal
import time
from typing import Any

import cramjam
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, AGGREGATION_TEMPORALITY_DELTA

from chassis.errors import PulsegateError
from contracts.pulsegate.config.v1 import definitions_pb2
from contracts.pulsegate.ingest.v1 import ingest_pb2 as pb
from contracts.pulsegate.ingest.v1.remote_write_pb2 import WriteRequest
from tests.integration.ingest.pipeline import Pipeline
from tests.integration.ingest.test_batch_stream import calling
from tests.integration.ingest.test_ledger import expect as expect_line


def statsd(body: str) -> dict[str, Any]:
    return {"body": gzip.compress(body.encode()), "content_encoding": "gzip", "door": pb.DOOR_STATSD}


async def test_statsd_lines_become_series(pipeline: Pipeline) -> None:
    pipeline.define("orders_total", labels=[{"name": "plan"}])
    pipeline.define("depth", "gauge")
    pipeline.define("render_seconds", "histogram", buckets=[0.1, 1])
    async with pipeline.running():
        lines = "orders:2|c|@0.5|#plan:pro\ndepth:7|g\nrender:50:500|ms|@0.1\nunknown:1|c\n"
        answer = await pipeline.send_bytes(**statsd(lines))
        assert answer.accepted == 3
        assert [(each.index, each.code) for each in answer.rejected] == [(3, "METRIC_NOT_DEFINED")]
        await pipeline.expect('orders_total{plan="pro", $project}', 4)
        await pipeline.expect("depth{$project}", 7)
        await pipeline.expect('render_seconds_bucket{le="0.1", $project}', 10)
        assert await pipeline.value("render_seconds_count{$project}") == 20
        assert await pipeline.value("render_seconds_sum{$project}") == pytest.approx(5.5)


async def test_otlp_data_points_become_series(pipeline: Pipeline) -> None:
    pipeline.define("orders_total", labels=[{"name": "plan"}, {"name": "job"}])
    pipeline.define("load_seconds", "histogram", buckets=[0.1, 1])
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "checkout"
    metrics = resource.scope_metrics.add().metrics
    orders = metrics.add(name="orders").sum
    orders.is_monotonic, orders.aggregation_temporality = True, AGGREGATION_TEMPORALITY_DELTA
    orders.data_points.add(as_int=3).attributes.add(key="plan").value.string_value = "pro"
    load = metrics.add(name="load", unit="s").histogram
    load.aggregation_temporality = AGGREGATION_TEMPORALITY_DELTA
    load.data_points.add(count=3, sum=2.5, bucket_counts=[1, 0, 2], explicit_bounds=[0.1, 1])
    load.data_points.add(count=1, sum=1, bucket_counts=[0, 1], explicit_bounds=[5])
    async with pipeline.running():
        answer = await pipeline.send_bytes(request.SerializeToString(), door=pb.DOOR_OTLP_PROTOBUF)
        assert answer.accepted == 2
        assert [(each.index, each.code) for each in answer.rejected] == [(2, "METRIC_TYPE_MISMATCH")]
        await pipeline.expect('orders_total{plan="pro", job="checkout", $project}', 3)
        await pipeline.expect('load_seconds_bucket{le="1.0", $project}', 1)
        assert await pipeline.value("load_seconds_count{$project}") == 3


async def test_a_request_of_thousands_of_lines_is_durable_as_a_whole_before_its_answer(pipeline: Pipeline) -> None:
    pipeline.define("orders_total", labels=[{"name": "n"}])
    lines = "\n".join(f"orders:{number}|c|#n:{number}{'x' * 190}" for number in range(5000))
    async with pipeline.running(), calling(pipeline) as caller:
        batch = caller.batch(**statsd(lines + "\nunknown:1|c" * 150))
        await caller.send(batch, caller.batch(**statsd("orders:1|c")))
        outcomes = await caller.outcomes(2)
        response = outcomes[batch.number].response
        assert (response.accepted, len(response.rejected), response.rejected_more) == (5000, 100, 50)
        await pipeline.expect("sum(orders_total{$project})", sum(range(5000)) + 1)


async def test_a_body_that_is_not_in_its_doors_format_is_refused_whole(pipeline: Pipeline) -> None:
    async with pipeline.receiver():
        for door, body, code in [
            (pb.DOOR_STATSD, b"\n", "BATCH_EMPTY"),
            (pb.DOOR_OTLP_PROTOBUF, b"\xff", "MALFORMED_REQUEST"),
            (pb.DOOR_OTLP_JSON, b"\xff", "MALFORMED_JSON"),
            (pb.DOOR_REMOTE_WRITE, b"\xff", "MALFORMED_REQUEST"),
        ]:
            with pytest.raises(PulsegateError) as caught:
                await pipeline.send_bytes(body, door=door)
            assert caught.value.code == code
        assert (await pipeline.send_bytes(b"", door=pb.DOOR_OTLP_PROTOBUF)).accepted == 0


def totals_of(source: str, orders: int, at_ms: int, start_ms: int = 0) -> bytes:
    """What a cumulative source stands at."""
    times = {"time_unix_nano": at_ms * 1_000_000, "start_time_unix_nano": start_ms * 1_000_000}
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.instance.id").value.string_value = source
    metrics = resource.scope_metrics.add().metrics
    counter = metrics.add(name="orders").sum
    counter.is_monotonic, counter.aggregation_temporality = True, AGGREGATION_TEMPORALITY_CUMULATIVE
    counter.data_points.add(as_int=orders, **times)
    load = metrics.add(name="load", unit="s").histogram
    load.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    load.data_points.add(count=orders, sum=orders, bucket_counts=[0, orders], explicit_bounds=[0.5], **times)
    wait = metrics.add(name="wait", unit="s").exponential_histogram
    wait.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    scale = 20 if orders < 20 else 2  # which falls as a source sees more
    point = wait.data_points.add(count=orders, sum=orders, scale=scale, **times)
    point.positive.offset = -1
    point.positive.bucket_counts.append(orders)
    return request.SerializeToString()


async def test_of_a_source_whose_start_is_not_known_what_it_gains_counts(reading: Pipeline) -> None:
    reading.define("orders_total")
    reading.define("load_seconds", "histogram", buckets=[0.5])
    reading.define("wait_seconds", "histogram", native_histogram=True)
    now_ms = int(time.time() * 1000)

    async def tell(orders: int, at_ms: int, start_ms: int) -> None:
        answer = await reading.send_bytes(totals_of("a", orders, at_ms, start_ms), door=pb.DOOR_OTLP_PROTOBUF)
        assert answer.accepted == 3

    async def shows(orders: int) -> None:
        await reading.expect("orders_total{$project}", orders)
        await reading.expect("load_seconds_count{$project}", orders)
        await reading.expect("load_seconds_sum{$project}", orders)
        await reading.expect("histogram_count(wait_seconds{$project})", orders)

    async with reading.receiver():
        async with reading.aggregator():
            await tell(1_000_000, now_ms, now_ms)
            await shows(0)
            await tell(1_000_010, now_ms + 10, now_ms)
            await shows(10)
            await tell(1_000_020, now_ms + 20, now_ms + 20)
        async with reading.aggregator():  # another owner
            await tell(1_000_020, now_ms + 20, now_ms + 20)
            await tell(1_000_021, now_ms + 30, now_ms + 20)
            await shows(11)
        await expect_line(reading, "orders_total", accepted=5, committed=4, duplicate=1)


async def test_totals_count_once_through_replays_restarts_and_takeovers(reading: Pipeline) -> None:
    reading.define("orders_total")
    reading.define("load_seconds", "histogram", buckets=[0.5])
    reading.define("wait_seconds", "histogram", native_histogram=True)
    now_ms = int(time.time() * 1000)

    async def tell(orders: int) -> None:
        for source in ("a", "b"):
            answer = await reading.send_bytes(totals_of(source, orders, now_ms + orders), door=pb.DOOR_OTLP_PROTOBUF)
            assert answer.accepted == 3

    async def shows(orders: int) -> None:
        await reading.expect("orders_total{$project}", orders)
        await reading.expect("load_seconds_sum{$project}", orders)
        await reading.expect("histogram_count(wait_seconds{$project})", orders)
        await reading.expect("histogram_sum(wait_seconds{$project})", orders)
        await reading.expect('load_seconds_bucket{le="0.5", $project}', 0)
        assert await reading.value('load_seconds_bucket{le="+Inf", $project}') == orders

    async with reading.receiver():
        with reading.process("aggregator") as first:
            for orders in (10, 20, 20):
                await tell(orders)
            await shows(40)
            await tell(30)
            first.kill()
        await tell(20)
        await tell(30)
        with reading.process("aggregator") as second:
            await shows(60)
            second.send_signal(signal.SIGSTOP)
            async with reading.aggregator(operations_port=reading.new_ports().public):
                await tell(40)
                await shows(80)
                second.send_signal(signal.SIGCONT)
                await tell(40)
                await tell(50)
                await shows(100)
        await expect_line(reading, "orders_total", accepted=18, committed=10, duplicate=8)
        await expect_line(reading, "load_seconds", accepted=18, committed=10, duplicate=8)


def written(*samples: tuple[str, float, dict[str, str]], at_ms: int) -> dict[str, Any]:
    """A request of remote write: names, values and labels."""
    request = WriteRequest()
    for name, value, labels in samples:
        series = request.timeseries.add()
        for label, text in sorted({"__name__": name, "job": "shop", "instance": "h:1", **labels}.items()):
            series.labels.add(name=label, value=text)
        series.samples.add(value=value, timestamp=at_ms)
    body = bytes(cramjam.snappy.compress_raw(request.SerializeToString()))
    return {"body": body, "content_encoding": "snappy", "door": pb.DOOR_REMOTE_WRITE}


async def test_a_merged_gauge_is_made_of_the_levels_of_each_instance(pipeline: Pipeline) -> None:
    pipeline.define("busy", "gauge", gauge_merge=definitions_pb2.GAUGE_MERGE_SUM)
    now_ms = int(time.time() * 1000)
    async with pipeline.running():
        for at, (instance, level) in enumerate([("h:1", 3.0), ("h:2", 4.0), ("h:1", 5.0)]):
            await pipeline.send_bytes(**written(("busy", level, {"instance": instance}), at_ms=now_ms + at))
        for instance in "ab":
            request = ExportMetricsServiceRequest()
            resource = request.resource_metrics.add()
            resource.resource.attributes.add(key="service.instance.id").value.string_value = instance
            resource.scope_metrics.add().metrics.add(name="busy").gauge.data_points.add(as_int=10)
            await pipeline.send_bytes(request.SerializeToString(), door=pb.DOOR_OTLP_PROTOBUF)
        await pipeline.expect("busy{$project}", 29)


async def test_samples_of_remote_write_become_series_and_those_that_cannot_are_accounted_for(reading: Pipeline) -> None:
    reading.define("orders_total", labels=[{"name": "plan"}, {"name": "instance"}])
    reading.define("load_seconds", "histogram", buckets=[0.5])
    reading.define("depth", "gauge")
    now_ms = int(time.time() * 1000)
    async with reading.running():
        answer = await reading.send_bytes(
            **written(
                ("orders_total", 5.0, {"plan": "pro"}),
                ("orders_total", 7.0, {"pod": "a"}),
                ("load_seconds_bucket", 2.0, {"le": "0.5"}),
                ("load_seconds_bucket", 2.0, {"le": "0.7"}),
                ("load_seconds_bucket", 3.0, {"le": "+Inf"}),
                ("load_seconds_count", 3.0, {}),
                ("load_seconds_sum", 4.5, {}),
                ("load_seconds_created", 1.7e9, {}),
                ("depth", -4.0, {}),
                ("up", 1.0, {}),
                at_ms=now_ms,
            )
        )
        assert answer.accepted == 6
        rejected = {each.index: each.code for each in answer.rejected}
        assert rejected == {1: "LABEL_UNKNOWN", 3: "METRIC_TYPE_MISMATCH", 8: "METRIC_NOT_DEFINED"}
        again = await reading.send_bytes(**written(("orders_total", 5.0, {"plan": "pro"}), at_ms=now_ms))
        late = await reading.send_bytes(**written(("orders_total", 4.0, {"plan": "pro"}), at_ms=now_ms - 1))
        assert (again.accepted, late.accepted) == (1, 1)
        await reading.expect('orders_total{plan="pro", instance="h:1", $project}', 5)
        await reading.expect("depth{$project}", -4)
        await reading.expect('load_seconds_bucket{le="0.5", $project}', 2)
        assert await reading.value('load_seconds_bucket{le="+Inf", $project}') == 3
        assert await reading.value("load_seconds_sum{$project}") == 4.5
        mismatch = {"METRIC_TYPE_MISMATCH": 1}
        await expect_line(reading, "load_seconds", received=5, accepted=4, committed=4, rejected=mismatch)
        await expect_line(reading, "orders_total", received=4, committed=1, duplicate=2, rejected={"LABEL_UNKNOWN": 1})
        await expect_line(reading, "up", received=1, accepted=0, rejected={"METRIC_NOT_DEFINED": 1})


async def test_data_defines_what_is_unknown_where_the_project_lets_it(pipeline: Pipeline) -> None:
    config = pipeline.upstreams.config
    async with pipeline.running():
        lines = statsd("orders:2|c|#plan:pro\norders:3|c|#region:eu\ndepth:7|g\nrender:250|ms")
        refused = await pipeline.send_bytes(**lines)
        assert (refused.accepted, config.asked_to_define) == (0, 0)
        config.auto_definition = True
        assert (await pipeline.send_bytes(**lines)).accepted == 4
        assert (await pipeline.send_bytes(**lines)).accepted == 4
        assert config.asked_to_define == 1
        await pipeline.expect('orders_total{plan="pro", $project}', 4)
        await pipeline.expect('orders_total{region="eu", $project}', 6)
        await pipeline.expect("depth{$project}", 7)


def exported(*gauges: str, at_ms: int) -> dict[str, Any]:
    """A request of OTLP in JSON."""
    points = [{"timeUnixNano": str(at_ms * 1_000_000), "asDouble": 7}]
    metrics = [{"name": name, "gauge": {"dataPoints": points}} for name in gauges]
    body = {"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}
    return {"body": json.dumps(body).encode(), "door": pb.DOOR_OTLP_JSON}


async def test_what_a_publishable_key_sends_defines_nothing_and_is_told_so(pipeline: Pipeline) -> None:
    pipeline.define("known", "gauge")
    config = pipeline.upstreams.config
    config.auto_definition = True
    now_ms = int(time.time() * 1000)
    doors = [
        statsd("known:1|g\ndepth:7|g"),
        exported("known", "depth", at_ms=now_ms),
        written(("known", 1.0, {}), ("depth", 7.0, {}), at_ms=now_ms),
        pushed("known 1\ndepth 7", "a"),
    ]
    async with pipeline.receiver():
        for sent in doors:
            answer = await pipeline.send_bytes(**sent, key="publishable")
            assert (answer.accepted, [each.code for each in answer.rejected]) == (1, ["METRIC_NOT_DEFINED"])
            assert "a publishable key defines nothing" in answer.rejected[0].message
        assert config.asked_to_define == 0
        assert [(await pipeline.send_bytes(**sent)).accepted for sent in doors] == [2] * 4
        assert (await pipeline.send_bytes(**doors[0], key="publishable")).accepted == 2, "what is there is for all keys"


async def test_what_is_over_the_new_names_of_one_request_is_told_so(pipeline: Pipeline) -> None:
    pipeline.upstreams.config.auto_definition = True
    sent = statsd("\n".join(f"depth{number}:7|g" for number in range(60)))
    async with pipeline.receiver():
        answer = await pipeline.send_bytes(**sent)
        assert answer.accepted == 50
        assert all("one request makes 50 definitions at most" in each.message for each in answer.rejected)
        assert (await pipeline.send_bytes(**sent)).accepted == 60


async def test_where_nothing_more_can_be_defined_config_is_left_alone_for_a_while(pipeline: Pipeline) -> None:
    config = pipeline.upstreams.config
    config.auto_definition, config.room = True, 1
    async with pipeline.receiver():
        several = await asyncio.gather(*(pipeline.send_bytes(**statsd("depth:7|g")) for _ in range(5)))
        assert [each.accepted for each in several] == [1] * 5
        assert config.asked_to_define == 1
        for number in range(5):
            answer = await pipeline.send_bytes(**statsd(f"new{number}:7|g\ndepth:1|g"))
            assert (answer.accepted, [each.code for each in answer.rejected]) == (1, ["METRIC_NOT_DEFINED"])
            reason = "There is no room." if number == 0 else "nothing came of the new names that were sent just before."
            told = f"This project has no metric 'new{number}'. Data does not make it: {reason}"
            assert answer.rejected[0].message.startswith(told)
        assert config.asked_to_define == 2


def pushed(body: str, job: str) -> dict[str, Any]:
    return {"body": body.encode(), "door": pb.DOOR_PUSH_TEXT, "group": pb.PushGroup(labels=["job", job])}


async def test_what_is_pushed_without_a_type_is_what_its_definition_says(pipeline: Pipeline) -> None:
    pipeline.define("rows_total")
    pipeline.define("depth", "gauge")
    pipeline.define("in_use", "gauge", gauge_merge=definitions_pb2.GAUGE_MERGE_SUM)
    async with pipeline.running():
        for rows in (5, 7, 7):
            assert (await pipeline.send_bytes(**pushed(f"rows_total {rows}\ndepth 3\nin_use 2", "a"))).accepted == 3
        assert (await pipeline.send_bytes(**pushed("rows_total 7\ndepth 4\nin_use 3", "b"))).accepted == 3
        await pipeline.expect("rows_total{$project}", 14)
        await pipeline.expect("depth{$project}", 4)
        await pipeline.expect("in_use{$project}", 5)


async def test_pushes_count_once_through_repetition_a_kill_and_a_takeover(reading: Pipeline) -> None:
    reading.define("rows_total")

    async def push(rows: int) -> None:
        for job in ("a", "b"):
            body = f"# TYPE rows_total counter\nrows_total {rows}"
            assert (await reading.send_bytes(**pushed(body, job))).accepted == 1

    async with reading.receiver():
        with reading.process("aggregator") as first:
            await push(5)
            await push(5)
            await reading.expect("rows_total{$project}", 10)
            await push(7)
            first.kill()
        await push(7)
        async with reading.aggregator():
            await reading.expect("rows_total{$project}", 14)
            await push(3)  # both jobs began anew
            await push(8)
            await reading.expect("rows_total{$project}", 30)
