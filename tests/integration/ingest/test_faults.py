"""The log, the database and Prometheus away, frozen, full or refusing: nothing acknowledged is lost or doubled.

Servers are started from the main thread: they end with the thread that started them.
"""

import asyncio
import dataclasses
import itertools
import secrets

import pytest
from prometheus_client import REGISTRY
from psycopg.conninfo import make_conninfo

from chassis import failpoints
from chassis.errors import Unavailable
from chassis.ids import uuid7
from chassis.tasks import in_background
from deploy.local.servers import Nats, Postgres, Prometheus
from services.ingest import log
from services.ingest.errors import LogUnavailable
from services.ingest.log_writer import LogWriter, Queued
from services.ingest.sinks import set_aside
from tests.forwarder import Forwarder
from tests.integration.ingest.http_sink import HttpSink, Samples, listening
from tests.integration.ingest.pipeline import PATIENCE_SECONDS, Load, Pipeline, increments
from tests.suite_servers import RunningServer
from tests.waiting import eventually

#: What a frame holds where nobody reads it.
RECORD = b"\xc0"


async def check_exact(pipeline: Pipeline, load: Load) -> None:
    await pipeline.expect("orders_total{$project}", load.acknowledged)
    assert increments(await pipeline.samples("orders_total{$project}"))


# --- the log


async def test_the_log_killed_and_back_under_load(pipeline: Pipeline, nats_server: RunningServer[Nats]) -> None:
    pipeline.define("orders_total")
    load = Load(pipeline, "orders_total")
    async with pipeline.running():
        async with load.running():
            for _ in range(2):
                await load.acknowledges(100)
                nats_server.kill()
                await pipeline.expect_readiness("receiver", "unready")
                nats_server.start()
                await load.acknowledges(100)
        await pipeline.expect_readiness("receiver", "ready")
        await check_exact(pipeline, load)


async def test_a_frozen_log_refuses_with_a_time_to_try_again(
    pipeline: Pipeline, nats_server: RunningServer[Nats]
) -> None:
    pipeline.define("orders_total")
    producer = str(uuid7())
    async with pipeline.running():
        with nats_server.paused():
            with pytest.raises(Unavailable) as caught:
                await pipeline.send({"name": "orders_total", "value": 1}, producer=producer, sequence=1)
            assert caught.value.retry_after_seconds
            await pipeline.expect_readiness("receiver", "unready")
        await pipeline.expect_readiness("receiver", "ready")
        answer = await pipeline.send({"name": "orders_total", "value": 1}, producer=producer, sequence=1)
        assert answer.accepted == 1
        await pipeline.send({"name": "orders_total", "value": 10}, producer=producer, sequence=2)
        await pipeline.expect("orders_total{$project}", 11)


async def _connects(stream: log.Log) -> None:
    await eventually(lambda: asyncio.sleep(0, stream.client.is_connected), what="the log is connected")


async def test_a_log_that_takes_nothing_more_is_left_at_once(
    pipeline: Pipeline, nats_server: RunningServer[Nats]
) -> None:
    """What was sent to it cannot be sent to its end."""
    server = nats_server.server
    way = Forwarder(server.port)
    async with way.forwarding():
        url = server.url.replace(str(server.port), str(way.listens))
        settings = dataclasses.replace(pipeline.receiver_settings, nats_urls=(url, url))
        async with log.connected(settings, "test") as stream:
            await _connects(stream)
            left = stream.connection
            way.freeze()
            for _ in range(3):
                await stream.client.publish("nobody.listens", bytes(5 << 20))
            stream.distrust(left)

            async def elsewhere() -> bool:
                return stream.client.is_connected and stream.connection > left

            await eventually(elsewhere, within_seconds=10.0, what="another connection")


async def test_a_writer_that_is_stopped_acknowledges_nothing_that_the_log_did_not(
    pipeline: Pipeline, nats_server: RunningServer[Nats]
) -> None:
    async with log.connected(pipeline.receiver_settings, "test") as stream:
        await _connects(stream)
        await stream.ensure()
        writer = LogWriter(stream, 0, Queued(1 << 20), timeout_seconds=30.0)
        running = asyncio.create_task(writer.run())
        await writer.put(RECORD).stored()
        with nats_server.paused():
            frames = [writer.put(RECORD)]
            await asyncio.sleep(0.1)
            frames += [writer.put(RECORD)]
            running.cancel()
            for frame in frames:
                with pytest.raises(LogUnavailable):
                    await frame.stored()


async def test_what_waits_for_a_log_that_never_comes_is_given_up(pipeline: Pipeline) -> None:
    settings = dataclasses.replace(pipeline.receiver_settings, nats_urls=("nats://127.0.0.1:1",))
    async with log.connected(settings, "test") as stream:
        writer = LogWriter(stream, 0, Queued(2 * len(RECORD)), timeout_seconds=0.3)
        async with in_background(writer.run()):
            for _ in range(3):  # what was given up makes room
                with pytest.raises(LogUnavailable):
                    await writer.put(RECORD).stored()


async def test_a_queue_that_is_full_refuses_at_once_whatever_the_lane(pipeline: Pipeline) -> None:
    async with log.connected(pipeline.receiver_settings, "test") as stream:
        queued = Queued(100)
        writers = [LogWriter(stream, lane, queued, timeout_seconds=60.0) for lane in range(2)]
        for writer in writers:
            writer.put(bytes(40))
        assert REGISTRY.get_sample_value("pulsegate_log_queued_bytes") == 80
        with pytest.raises(LogUnavailable):
            writers[0].put(bytes(30))


async def test_a_full_log_refuses_and_takes_again_once_the_aggregator_has_caught_up(pipeline: Pipeline) -> None:
    pipeline.define("orders_total", labels=[{"name": f"label_{letter}"} for letter in "abcdefgh"])
    accepted = 0
    refusal: Unavailable | None = None
    async with pipeline.receiver(log_most_bytes=1 << 20):
        async with pipeline.client() as send:
            while refusal is None:
                labels = {f"label_{letter}": letter * 200 for letter in "abcdefgh"}
                metrics = [
                    {"name": "orders_total", "value": 1, "labels": {**labels, "label_a": secrets.token_hex(100)}}
                    for _ in range(100)
                ]
                try:
                    accepted += (await send(*metrics)).accepted
                except Unavailable as error:
                    refusal = error
        assert "full" in refusal.message
        assert refusal.retry_after_seconds == 10.0
        assert accepted > 0
        async with pipeline.aggregator(log_most_bytes=1 << 20):

            async def taken() -> bool:
                try:
                    return (await pipeline.send({"name": "orders_total", "value": 1})).accepted == 1
                except Unavailable:
                    return False

            await eventually(taken, within_seconds=PATIENCE_SECONDS, what="the log has room again")
            await pipeline.expect("sum(orders_total{$project})", accepted + 1)


async def test_the_logs_bound_follows_the_settings(pipeline: Pipeline) -> None:
    for most_bytes in (1 << 20, 2 << 20):
        async with (
            pipeline.receiver(log_most_bytes=most_bytes),
            log.connected(pipeline.receiver_settings, "test") as stream,
        ):
            await _connects(stream)
            info = await stream.jetstream.stream_info(stream.stream)
            assert info.config.max_bytes == most_bytes


# --- the database


async def test_the_database_killed_and_back_under_load(
    pipeline: Pipeline, postgres_server: RunningServer[Postgres]
) -> None:
    pipeline.define("orders_total")
    load = Load(pipeline, "orders_total")
    async with pipeline.running():
        async with load.running():
            for _ in range(2):
                await load.acknowledges(200)
                postgres_server.kill()
                await pipeline.expect_readiness("aggregator", "unready")
                assert (await pipeline.readiness("receiver"))["status"] == "ready"
                await load.acknowledges(100)
                postgres_server.start()
        await check_exact(pipeline, load)
        await pipeline.expect_readiness("aggregator", "ready")


async def test_the_database_silent_in_mid_commit(
    pipeline: Pipeline, postgres_server: RunningServer[Postgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections stay open and nothing comes over them; new ones are well."""
    pipeline.define("orders_total")
    way, striking = Forwarder(postgres_server.server.port), asyncio.Event()

    async def reached(point: str) -> None:
        if point == "in-commit" and striking.is_set():
            striking.clear()
            way.fall_silent()

    monkeypatch.setattr(failpoints, "ARMED", {"in-commit": []})
    monkeypatch.setattr(failpoints, "reached", reached)
    async with way.forwarding():
        dsn = make_conninfo(pipeline.aggregator_settings.dsn, port=way.listens)
        async with pipeline.receiver(), pipeline.aggregator(dsn=dsn):
            await pipeline.send({"name": "orders_total", "value": 1})
            await pipeline.expect("orders_total{$project}", 1)
            striking.set()
            await eventually(lambda: asyncio.sleep(0, not striking.is_set()), what="the database is silent")
            await pipeline.send({"name": "orders_total", "value": 10})
            await pipeline.expect("orders_total{$project}", 11, within_seconds=30.0)
            await pipeline.expect_readiness("aggregator", "ready")


# --- Prometheus


async def test_prometheus_down_and_back(pipeline: Pipeline, prometheus_server: RunningServer[Prometheus]) -> None:
    pipeline.define("orders_total")
    load = Load(pipeline, "orders_total")
    async with pipeline.running():
        async with load.running():
            await load.acknowledges(100)
            prometheus_server.kill()
            await load.acknowledges(200)
            prometheus_server.start()
            await load.acknowledges(100)
        await check_exact(pipeline, load)


async def test_a_sink_that_takes_nothing_is_told_in_readiness(
    pipeline: Pipeline, prometheus_server: RunningServer[Prometheus]
) -> None:
    pipeline.define("orders_total")
    async with pipeline.running():
        await pipeline.send({"name": "orders_total", "value": 1})
        await pipeline.expect("orders_total{$project}", 1)
        await pipeline.expect_readiness("aggregator", "ready")
        with prometheus_server.paused():
            await pipeline.send({"name": "orders_total", "value": 1})
            await pipeline.expect_readiness("aggregator", "degraded")
            check = (await pipeline.readiness("aggregator"))["checks"]["sink remote_write"]
            assert (check["status"], check["hard"]) == ("down", False)
            assert "has waited" in check["reason"]
        await pipeline.expect_readiness("aggregator", "ready")


async def test_prometheus_down_over_a_restart_of_the_aggregator(
    pipeline: Pipeline, prometheus_server: RunningServer[Prometheus]
) -> None:
    pipeline.define("orders_total")
    pipeline.define("quiet_total")
    async with pipeline.receiver():
        prometheus_server.kill()
        async with pipeline.aggregator():
            await pipeline.send({"name": "quiet_total", "value": 5}, {"name": "orders_total", "value": 1})
        prometheus_server.start()
        async with pipeline.aggregator():
            await pipeline.send({"name": "orders_total", "value": 1})
            await pipeline.expect("quiet_total{$project}", 5)
            await pipeline.expect("orders_total{$project}", 2)
            assert (await pipeline.samples("quiet_total{$project}"))[0][1] == 0.0


async def expect_latest(sink: HttpSink, name: str, value: float) -> None:
    async def has() -> bool:
        return sink.latest(name) == value

    await eventually(has, within_seconds=PATIENCE_SECONDS, what=f"{name} arrives as {value}")


async def test_a_sink_that_answers_500_429_and_nothing_gets_everything_in_the_end(pipeline: Pipeline) -> None:
    pipeline.define("orders_total")
    async with listening() as sink:
        faults = itertools.chain([500, 429, 0, 503, 0, 429, 502], itertools.repeat(204))
        sink.answer = lambda _: next(faults)
        async with pipeline.receiver(), pipeline.aggregator(remote_write_url=sink.url):
            for _ in range(5):
                await pipeline.send({"name": "orders_total", "value": 1})
            await expect_latest(sink, "orders_total", 5.0)
        assert sink.answered[:7] == [500, 429, 0, 503, 0, 429, 502]
        values = [value for _, value in sink.taken["orders_total"]]
        assert values == sorted(values)
        assert values[0] == 0.0
        assert sink.taken["orders_total"] == sorted(sink.taken["orders_total"])


@pytest.mark.parametrize("refusal", [400, 500])
async def test_one_bad_series_does_not_hold_up_the_others(
    pipeline: Pipeline, refusal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_aside, "_FIRST_PAUSE_SECONDS", 0.01)
    names = [f"metric_{number}_total" for number in range(20)]
    for name in names:
        pipeline.define(name)

    def answer(samples: Samples) -> int:
        return refusal if any(labels["__name__"] == "metric_7_total" for labels, _, _ in samples) else 204

    async with listening() as sink:
        sink.answer = answer
        async with pipeline.receiver(), pipeline.aggregator(remote_write_url=sink.url):
            await pipeline.send(*({"name": name, "value": 1} for name in names))
            for name in names:
                if name != "metric_7_total":
                    await expect_latest(sink, name, 1.0)
            sink.answer = lambda _: 204
            await pipeline.send({"name": "metric_7_total", "value": 1})
            await expect_latest(sink, "metric_7_total", 2.0)
