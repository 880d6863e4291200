"""Sending, retrying and settling, against a scripted server in this process."""

import email.utils
import logging
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import pytest

from ingestion_server import Answer, IngestionServer, wait_until
from pulsegate_runtime import Client
from pulsegate_runtime.connection import Connection

MakeClient = Callable[..., Client]


def error(code: str) -> Dict[str, Any]:
    return {"error": {"code": code, "message": "…", "timestamp": "…", "correlationId": "…"}}


@pytest.mark.parametrize(
    "failure", [Answer(500), Answer(503), Answer(408), Answer(425), Answer(429), Answer(200), Answer(301)]
)
def test_a_retry_is_byte_identical(server: IngestionServer, make_client: MakeClient, failure: Answer) -> None:
    server.script = [failure] * 3
    client = make_client()
    client.record("n_total", 1, {"plan": "pro"}, kind="counter")
    client.record("level", 4, kind="gauge")
    assert client.flush()
    assert len(server.requests) == 4
    assert len({request.body for request in server.requests}) == 1
    assert client.stats.retries == 3
    assert client.stats.accepted == 2


def test_a_batch_whose_answer_is_lost_is_counted_once(server: IngestionServer, make_client: MakeClient) -> None:
    server.script = [Answer(), Answer(cut=True), Answer(cut=True)]
    client = make_client()
    for _ in range(3):
        client.record("n_total", 1, kind="counter")
        assert client.flush()
    assert server.totals == {"n_total": 3}
    assert len(server.requests) > 3
    assert client.stats.accepted == 3


def test_a_batch_is_tried_again_when_the_server_says_nothing(server: IngestionServer, make_client: MakeClient) -> None:
    silence = threading.Event()
    server.script = [Answer(after=silence)]
    client = make_client(timeout_seconds=0.2)
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    silence.set()
    assert server.totals == {"n_total": 1}
    assert client.stats.retries >= 1
    assert client.stats.accepted == 1


def test_sequences_count_from_one_and_the_floor_follows_what_is_settled(
    server: IngestionServer, make_client: MakeClient
) -> None:
    client = make_client(flush_interval_seconds=60)
    for _ in range(3):
        client.record("n_total", 1, kind="counter")
        assert client.flush()
    hold = threading.Event()
    server.script = [Answer(after=hold)]
    for expected in (1, 2, 3):
        client.record("n_total", 1, kind="counter")
        client.flush(0)
        wait_until(lambda expected=expected: client.stats.queued_batches == expected, "the batch is sealed")
    hold.set()
    assert client.flush()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    numbers = [(request.batch["sequence"], request.batch["floor"]) for request in server.requests]
    assert numbers == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 4), (7, 7)]
    assert len({request.batch["producer"] for request in server.requests}) == 1


def test_a_client_goes_on_as_a_new_producer_when_an_outage_fills_the_sequence_window(
    server: IngestionServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pulsegate_runtime.sealing._SEQUENCE_WINDOW", 10)
    server.stop()
    client = make_client(max_batch_metrics=1)
    for _ in range(25):
        client.record("n_total", 1)
    wait_until(lambda: client.stats.queued_batches == 25, "all are sealed")
    server.start()
    assert client.flush()
    spans: Dict[str, int] = {}
    for request in server.requests:
        batch = request.batch
        spans[batch["producer"]] = max(spans.get(batch["producer"], 0), batch["sequence"] - batch["floor"] + 1)
    assert sorted(spans.values()) == [5, 10, 10]
    assert server.totals == {"n_total": 25}


def test_a_batch_that_the_server_cannot_digest_does_not_hold_up_the_others(
    server: IngestionServer, make_client: MakeClient
) -> None:
    client = make_client(max_batch_metrics=1, flush_interval_seconds=60)
    poison = threading.Event()
    taken = server.take

    def take(request: Any) -> Answer:
        if b"poison" in request.body and not poison.is_set():
            server.requests.append(request)
            return Answer(500)
        return taken(request)

    server.take = take  # type: ignore[method-assign]
    client.record("poison_total", 1)
    for _ in range(5):
        client.record("n_total", 1)
    wait_until(lambda: server.totals == {"n_total": 5}, "the good ones arrive")
    poison.set()
    assert client.flush()
    assert server.totals == {"n_total": 5, "poison_total": 1}


def test_retry_after_in_seconds_is_honoured(server: IngestionServer, make_client: MakeClient) -> None:
    server.script = [Answer(429, headers=(("Retry-After", "1"),))]
    client = make_client()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    first, second = server.requests
    assert 1.0 <= second.at - first.at < 3.0


def test_retry_after_as_a_date_is_honoured(server: IngestionServer, make_client: MakeClient) -> None:
    due = int(time.time()) + 2
    server.script = [Answer(503, headers=(("Retry-After", email.utils.formatdate(due, usegmt=True)),))]
    client = make_client()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    _, second = server.requests
    late = second.at + time.time() - time.monotonic() - due
    assert -0.01 < late < 3.0


@pytest.mark.parametrize("nonsense", ["soon", "-5", "1e9", "Mon, 99 Foo 2026 00:00:00 GMT", ""])
def test_a_retry_after_that_says_nothing_is_ignored(
    server: IngestionServer, make_client: MakeClient, nonsense: str
) -> None:
    server.script = [Answer(503, headers=(("Retry-After", nonsense),))]
    client = make_client()
    client.record("n_total", 1, kind="counter")
    assert client.flush(5)


def flush(client: Client) -> bool:
    return client.flush()


def close(client: Client) -> bool:
    client.close()
    return client.stats.accepted == 1


@pytest.mark.parametrize("send_now", [flush, close])
def test_flush_and_close_send_at_once_where_a_failure_has_made_the_client_patient(
    server: IngestionServer, make_client: MakeClient, send_now: Callable[[Client], bool]
) -> None:
    server.script = [Answer(503)]
    client = make_client(retry_base_seconds=3600, retry_cap_seconds=3600)
    client.record("n_total", 1, kind="counter")
    wait_until(lambda: client.stats.retries == 1, "the first attempt has failed")
    assert send_now(client)
    assert server.totals == {"n_total": 1}


def test_a_flush_during_an_attempt_that_fails_sends_again_at_once(
    server: IngestionServer, make_client: MakeClient
) -> None:
    hold = threading.Event()
    server.script = [Answer(503, after=hold)]
    client = make_client(retry_base_seconds=3600, retry_cap_seconds=3600)
    client.record("n_total", 1, kind="counter")
    wait_until(lambda: server.requests, "the first attempt is under way")
    client.flush(0)
    hold.set()
    wait_until(lambda: client.stats.accepted == 1, "the second attempt")


@pytest.mark.parametrize("send_now", [flush, close])
def test_flush_and_close_are_no_sooner_than_the_server_asked(
    server: IngestionServer, make_client: MakeClient, send_now: Callable[[Client], bool]
) -> None:
    server.script = [Answer(503, headers=(("Retry-After", "1"),))]
    client = make_client(retry_base_seconds=3600, retry_cap_seconds=3600)
    client.record("n_total", 1, kind="counter")
    wait_until(lambda: client.stats.retries == 1, "the first attempt has failed")
    assert send_now(client)
    first, second = server.requests
    assert 1.0 <= second.at - first.at < 5.0


def test_waits_grow_up_to_the_cap(server: IngestionServer, make_client: MakeClient) -> None:
    server.script = [Answer(503)] * 8
    client = make_client(retry_base_seconds=0.05, retry_cap_seconds=0.4)
    client.record("n_total", 1, kind="counter")
    wait_until(lambda: client.stats.accepted == 1, "the last attempt")  # not by flush(), which ends a wait
    times = [request.at for request in server.requests]
    waits = [later - earlier for earlier, later in zip(times, times[1:])]
    least = [0.025, 0.05, 0.1] + [0.2] * 5
    assert all(low <= wait for low, wait in zip(least, waits))
    assert sum(waits) < 6.0  # without the cap more, with it at most 2.35


@pytest.mark.parametrize("answer", [Answer(422, error("BATCH_REJECTED")), Answer(400), Answer(404), Answer(422)])
def test_a_final_refusal_is_counted_and_not_repeated(
    server: IngestionServer, make_client: MakeClient, answer: Answer
) -> None:
    server.script = [answer]
    client = make_client()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    assert (client.stats.rejected, client.stats.accepted, client.stats.retries) == (1, 1, 0)
    assert server.requests[1].batch["sequence"] == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(413, error("BODY_TOO_LARGE")), "too_large"),
        (Answer(422, error("SEQUENCE_OUT_OF_WINDOW")), "out_of_window"),
    ],
)
def test_a_batch_that_cannot_be_taken_is_dropped(
    server: IngestionServer, make_client: MakeClient, answer: Answer, reason: str
) -> None:
    server.script = [answer]
    client = make_client()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    assert client.stats.dropped == {reason: 1}
    assert len(server.requests) == 1


def test_rejected_metrics_of_an_accepted_batch_count_by_the_calls_they_carry(
    server: IngestionServer, make_client: MakeClient
) -> None:
    bad = {"index": 1, "code": "LABEL_VALUE_NOT_ALLOWED", "message": "…"}
    server.script = [Answer(202, {"accepted": 1, "rejected": [bad]})]
    client = make_client(flush_interval_seconds=60)
    for _ in range(3):
        client.record("good_total", 1, kind="counter")
    for _ in range(5):
        client.record("bad_total", 1, kind="counter")
    assert client.flush()
    assert (client.stats.accepted, client.stats.rejected) == (3, 5)


@pytest.mark.parametrize("body", [{"rejected": 7}, {"rejected": [{"index": "x"}]}, {"error": []}, {"accepted": None}])
def test_an_odd_202_still_settles_the_batch(
    server: IngestionServer, make_client: MakeClient, body: Dict[str, Any]
) -> None:
    server.script = [Answer(202, body)]
    client = make_client()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    assert client.stats.accepted == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_loses_nothing_and_is_tried_rarely(
    server: IngestionServer, make_client: MakeClient, status: int
) -> None:
    server.script = [Answer(status, error("INVALID_API_KEY"))]
    client = make_client()
    client.record("n_total", 1, kind="counter")
    wait_until(lambda: client.stats.accepted == 1, "the second attempt")  # not by flush(), which ends the wait
    first, second = server.requests
    assert first.body == second.body
    assert second.at - first.at >= 0.1  # half of ten times the usual first wait


@pytest.mark.parametrize(
    "endpoint", ["", "nonsense", "ftp://127.0.0.1", "http://", "http://127.0.0.1:bad", "http://a..b", "http://[::"]
)
def test_an_unusable_endpoint_is_told_once_and_not_tried(
    make_client: MakeClient, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(endpoint=endpoint)
    client.record("n_total", 1, kind="counter")
    began = time.monotonic()
    assert not client.flush(60)
    client.close(60)
    assert time.monotonic() - began < 10
    assert (client.stats.retries, client.stats.dropped) == (0, {"closed": 1})
    [told] = [message for message in caplog.messages if "endpoint" in message]
    assert told.startswith(f"nothing can be sent: the endpoint {endpoint!r} is not an address such as https://")


@pytest.mark.parametrize("key", ["", "sk_canary\nsecret", "sk_sécret", None])
def test_what_is_recorded_under_an_unusable_key_waits_for_one_that_can_be_used(
    server: IngestionServer, make_client: MakeClient, tmp_path: Path, caplog: pytest.LogCaptureFixture, key: Any
) -> None:
    broken = Client(server.endpoint, key, queue_directory=str(tmp_path), flush_interval_seconds=0.01)
    broken.record("n_total", 1, kind="counter")
    broken.close()
    assert "nothing can be sent: the key is" in caplog.text
    assert "cret" not in caplog.text
    make_client(queue_directory=str(tmp_path))
    wait_until(lambda: server.totals == {"n_total": 1}, "another client sends it")


def test_the_key_is_sent_and_never_logged(
    server: IngestionServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    unwelcome = {"error": {"code": "INVALID_API_KEY", "message": "your key sk_test is not welcome"}}
    server.script = [Answer(401, unwelcome), Answer(503), Answer(400)]
    client = make_client()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    assert server.requests[0].headers["X-API-Key"] == "sk_test"
    assert "your key … is not welcome" in caplog.text
    assert "sk_test" not in caplog.text


def test_the_log_names_the_metric_and_says_what_the_server_says(
    server: IngestionServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    fault = {"index": 1, "code": "LABEL_UNKNOWN", "message": "The definition has no label\n'colour'."}
    all_faults = {"rejected": [{**fault, "code": "LABEL_MISSING"}]}
    every = {"code": "BATCH_REJECTED", "message": "Every metric was rejected.", "details": all_faults}
    server.script = [
        Answer(202, {"accepted": 1, "rejected": [fault]}),
        Answer(422, {"error": every}),
        Answer(503, {"error": {"code": "SERVICE_UNAVAILABLE", "message": "The log is full."}}),
    ]
    client = make_client(flush_interval_seconds=60)
    for _ in range(3):
        client.record("good_total", 1, kind="counter")
        client.record("bad_total", 1, kind="counter")
        assert client.flush()
    sentence = "The definition has no label 'colour'."
    one, two, three = caplog.messages
    assert one == f"the server rejected 1 record() calls, such as of 'bad_total': 202 LABEL_UNKNOWN: {sentence}"
    assert two == f"the server rejected 2 record() calls, such as of 'bad_total': 422 LABEL_MISSING: {sentence}"
    assert three.startswith("a batch was not delivered (503 SERVICE_UNAVAILABLE: The log is full.);")


def test_warnings_are_few(server: IngestionServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="pulsegate")
    server.script = [Answer(503)] * 8
    client = make_client()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    assert len(caplog.records) == 1


def test_a_log_handler_that_raises_ends_nothing(
    server: IngestionServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("the host's own fault")

    monkeypatch.setattr(logging.getLogger("pulsegate"), "handlers", [Broken()])
    server.script = [Answer(503), Answer(cut=True), Answer(400)]
    client = make_client()
    client.record("n_total", "wrong", kind="counter")
    for _ in range(2):
        client.record("n_total", 1, kind="counter")
        assert client.flush()
    assert (client.stats.accepted, client.stats.rejected) == (1, 1)


@pytest.mark.parametrize("odd", [float("inf"), float("nan"), 0, -1, 1e300])
def test_odd_waits_are_bounded(server: IngestionServer, make_client: MakeClient, odd: float) -> None:
    server.script = [Answer(503)] * 2
    client = make_client(flush_interval_seconds=odd, retry_base_seconds=0.01, retry_cap_seconds=odd)
    client.flush(odd)
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    client.close(odd)
    assert server.totals == {"n_total": 1}


def test_large_bodies_are_compressed_and_small_ones_not(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    client.record("seconds", [0.125] * 1000, kind="histogram")
    assert client.flush()
    small, large = server.requests
    assert "Content-Encoding" not in small.headers
    assert large.headers["Content-Encoding"] == "gzip"
    assert int(large.headers["Content-Length"]) < len(large.body) / 10


def test_one_connection_serves_many_batches(server: IngestionServer, make_client: MakeClient) -> None:
    client = make_client()
    for _ in range(5):
        client.record("n_total", 1, kind="counter")
        assert client.flush()
    assert len({request.connection for request in server.requests}) == 1


def test_an_idle_connection_that_the_server_closed_costs_no_retry(
    server: IngestionServer, make_client: MakeClient
) -> None:
    client = make_client()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    server.stop()
    server.start()
    client.record("n_total", 1, kind="counter")
    assert client.flush()
    assert client.stats.retries == 0
    assert server.totals == {"n_total": 2}


def test_the_first_attempt_after_an_outage_is_answered(server: IngestionServer) -> None:
    connection = Connection(server.endpoint, "sk_test", 5)
    body = b'{"producer": "p", "sequence": 1, "metrics": []}'
    assert connection.post(body).status == 202
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        connection.post(body)
    server.start()
    assert connection.post(body).status == 202
    connection.close()


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("http://[::1]", ("::1", 80)),
        ("https://[2001:db8::443]/", ("2001:db8::443", 443)),
        ("https://[::1]:8443", ("::1", 8443)),
        ("http://metrics.example.com", ("metrics.example.com", 80)),
        ("https://192.0.2.1", ("192.0.2.1", 443)),
    ],
)
def test_an_endpoint_without_a_port_has_that_of_its_scheme(
    endpoint: str, address: Tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    dialled = []

    def dial(address: Tuple[str, int], *_: object) -> None:
        dialled.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr("socket.create_connection", dial)
    with pytest.raises(ConnectionRefusedError):
        Connection(endpoint, "sk_test", 1).post(b"{}")
    assert dialled == [address]


def test_a_path_in_the_endpoint_is_kept(make_client: MakeClient, server: IngestionServer) -> None:
    client = make_client(endpoint=f"{server.endpoint}/")
    client.record("n_total", 1, kind="counter")
    assert client.flush()
