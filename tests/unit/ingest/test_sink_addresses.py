"""The list of sinks in the settings: every fault is named, no secret is."""

from pathlib import Path

import pytest

from chassis.settings import SettingsError, load
from services.ingest.settings import AggregatorSettings
from services.ingest.sinks.addresses import SinkAddress, SinkKind
from tests.waiting import wait_for

REQUIRED = {
    "PULSEGATE_OPS_PORT": "8081",
    "PULSEGATE_SERVICE_TOKEN": "st_secret",
    "PULSEGATE_NATS_URL": "nats://log:4222",
    "PULSEGATE_POSTGRES_DSN": "postgresql://ingest@db/pulsegate",
}
PROMETHEUS = {"PULSEGATE_REMOTE_WRITE_URL": "http://prometheus:9090/api/v1/write"}


def settings(**variables: str) -> AggregatorSettings:
    return load(AggregatorSettings, REQUIRED | variables)


def faults(**variables: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings(**variables)
    return caught.value.faults


def test_one_address_is_one_sink() -> None:
    assert settings(**PROMETHEUS).sinks == (
        SinkAddress(name="remote_write", url=PROMETHEUS["PULSEGATE_REMOTE_WRITE_URL"]),
    )


def test_a_list_names_kinds_and_addresses() -> None:
    listed = "mimir=https://mimir/push?a=b+c, vm=remote_write+http://vm:8428/api/v1/write\n gate=pushgateway+http://gate:9091"
    assert settings(**PROMETHEUS, PULSEGATE_SINKS=listed).sinks[1:] == (
        SinkAddress(name="mimir", url="https://mimir/push?a=b+c"),
        SinkAddress(name="vm", url="http://vm:8428/api/v1/write"),
        SinkAddress(name="gate", kind=SinkKind.PUSHGATEWAY, url="http://gate:9091"),
    )
    assert [sink.name for sink in settings(PULSEGATE_SINKS=listed).sinks] == ["mimir", "vm", "gate"]


def test_a_sink_reads_as_it_is_listed() -> None:
    [sink] = settings(PULSEGATE_SINKS="gate=pushgateway+http://gate:9091").sinks
    assert settings(PULSEGATE_SINKS=str(sink)).sinks == (sink,)


def test_headers_are_those_of_their_sink() -> None:
    given = settings(
        PULSEGATE_SINKS="mimir=https://mimir/push,vm=http://vm:8428/api/v1/write",
        PULSEGATE_SINK_HEADERS='{"mimir": {"X-Scope-OrgID": "pulsegate", "Authorization": "Bearer canary"}}',
    )
    mimir, vm = given.sinks
    assert given.headers_of(mimir)() == {"X-Scope-OrgID": "pulsegate", "Authorization": "Bearer canary"}
    assert given.headers_of(vm)() == {}
    assert "canary" not in repr(given)


def test_what_is_secret_about_a_sink_is_what_its_file_has_now(tmp_path: Path) -> None:
    headers, address = tmp_path / "headers", tmp_path / "address"
    headers.write_text('{"mimir": {"Authorization": "Bearer first"}}')
    address.write_text("https://pulsegate:first@prometheus/api/v1/write")
    given = settings(
        PULSEGATE_SINKS="mimir=https://mimir/push",
        PULSEGATE_SINK_HEADERS_FILE=str(headers),
        PULSEGATE_REMOTE_WRITE_URL_FILE=str(address),
    )
    prometheus, mimir = given.sinks
    headers_of_mimir, url_of_prometheus = given.headers_of(mimir), given.url_of(prometheus)
    headers.write_text('{"mimir": {"Authorization": "Bearer second"}}')
    address.write_text("https://pulsegate:second@prometheus/api/v1/write")
    wait_for(lambda: headers_of_mimir() == {"Authorization": "Bearer second"})
    wait_for(lambda: url_of_prometheus() == "https://pulsegate:second@prometheus/api/v1/write")
    assert given.url_of(mimir)() == "https://mimir/push"
    assert [sink.name for sink in given.sinks] == ["remote_write", "mimir"]


def test_every_fault_is_named() -> None:
    listed = (
        "Mimir=http://a, gate=gopher://b, vm=http://c:99999, vm2=http://user:canary@d, e=http://e, e=http://e, canary"
    )
    [fault] = faults(PULSEGATE_SINKS=listed)
    assert fault.startswith("PULSEGATE_SINKS: ")
    for part in (
        "of small letters",
        "'gate' must have",
        "'vm' must have",
        "'vm2' must have its credentials",
        "'e' twice",
    ):
        assert part in fault
    assert "canary" not in fault


def test_without_any_sink_there_is_nothing_to_do() -> None:
    assert faults() == ["PULSEGATE_REMOTE_WRITE_URL: is required where PULSEGATE_SINKS names no sink"]


@pytest.mark.parametrize(
    "headers",
    [
        '{"vm": {"A": 1}}',
        "canary",
        '{"vm": {"Content-Type": "canary"}}',
        '{"vm": {"A": "canary\\n"}}',
        '{"vm": {"": ""}}',
    ],
)
def test_headers_that_cannot_be_sent_are_refused(headers: str) -> None:
    [fault] = faults(PULSEGATE_SINKS="vm=http://c", PULSEGATE_SINK_HEADERS=headers)
    assert fault.startswith("PULSEGATE_SINK_HEADERS: ")
    assert "canary" not in fault


def test_sinks_that_cannot_be_read_are_not_held_against_their_headers() -> None:
    [fault] = faults(PULSEGATE_SINKS="vm=gopher://c", PULSEGATE_SINK_HEADERS='{"vm": {"A": "a"}}')
    assert fault.startswith("PULSEGATE_SINKS: ")


def test_what_contradicts_itself_is_named_beside_what_cannot_be_read() -> None:
    unreadable, contradicting = faults(
        PULSEGATE_LOG_LANES="none", PULSEGATE_SINK_HEADERS='{"vm": {"A": "a"}}', **PROMETHEUS
    )
    assert unreadable.startswith("PULSEGATE_LOG_LANES: ")
    assert contradicting == "PULSEGATE_SINK_HEADERS: 'vm' is no sink"


def test_what_contradicts_itself_is_refused() -> None:
    found = faults(
        **PROMETHEUS, PULSEGATE_SINKS="remote_write=http://c", PULSEGATE_SINK_HEADERS='{"absent": {"A": "b"}}'
    )
    assert found == [
        "PULSEGATE_SINKS: 'remote_write' is the sink of PULSEGATE_REMOTE_WRITE_URL, which is set too",
        "PULSEGATE_SINK_HEADERS: 'absent' is no sink",
    ]
