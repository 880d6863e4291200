"""What the services are told when they are started."""

from pathlib import Path

import pytest

from deploy.local.backing import Backing, backing_servers
from deploy.local.layout import DataFolder, Ports
from deploy.local.programs import Program
from deploy.local.services import canary_program, service_programs

PORTS = Ports(9000)


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    data = DataFolder(tmp_path)
    data.make()
    return data


@pytest.fixture
def backing(data: DataFolder) -> Backing:
    return backing_servers(data, PORTS, prometheus_binary=None)


def programs(backing: Backing, data: DataFolder, **environment: str) -> dict[str, Program]:
    return {program.name: program for program in service_programs(backing, PORTS, data, environment)}


def test_the_gateway_comes_last(backing: Backing, data: DataFolder) -> None:
    assert list(programs(backing, data)) == ["auth", "config", "codegen", "receiver", "aggregator", "gateway"]


def test_no_two_listeners_share_a_port(backing: Backing, data: DataFolder) -> None:
    ports = [port for program in programs(backing, data).values() for port in program.ports.values()]
    ports += [port for server in backing.servers() for port in server.program().ports.values()]
    assert len(ports) == len(set(ports))
    assert set(ports) <= set(range(9000, 9016))


def test_secrets_are_files_that_only_their_owner_reads(backing: Backing, data: DataFolder) -> None:
    auth = programs(backing, data)["auth"].environment
    file = Path(auth["PULSEGATE_POSTGRES_DSN_FILE"])
    assert file.read_text().startswith("postgresql://auth:")
    assert file.stat().st_mode & 0o077 == 0
    assert backing.secrets.password("auth_password") not in " ".join(auth.values())


def test_a_service_is_told_nothing_that_it_does_not_need(backing: Backing, data: DataFolder) -> None:
    told = {name: set(program.environment) for name, program in programs(backing, data).items()}
    assert [name for name, names in told.items() if "PULSEGATE_AUTH_MASTER_KEY_FILE" in names] == ["auth"]
    assert [name for name, names in told.items() if "PULSEGATE_GATEWAY_SEALING_KEY_FILE" in names] == ["gateway"]
    assert [name for name, names in told.items() if "PULSEGATE_REMOTE_WRITE_URL" in names] == ["aggregator"]
    assert "PULSEGATE_POSTGRES_DSN_FILE" not in told["gateway"]


def test_the_callers_settings_reach_the_services(backing: Backing, data: DataFolder) -> None:
    gateway = programs(backing, data, PULSEGATE_DEFAULT_PLAN="free", LANG="C")["gateway"]
    assert gateway.environment["PULSEGATE_DEFAULT_PLAN"] == "free"
    assert gateway.environment["LANG"] == "C"


def test_the_stacks_own_settings_replace_the_callers(backing: Backing, data: DataFolder) -> None:
    auth = programs(backing, data, PULSEGATE_POSTGRES_DSN="postgresql://elsewhere", PULSEGATE_OPS_PORT="1")["auth"]
    assert "PULSEGATE_POSTGRES_DSN" not in auth.environment
    assert auth.environment["PULSEGATE_OPS_PORT"] == "9002"


def test_a_canary_is_told_of_the_public_door_and_trusted_with_nothing(backing: Backing, data: DataFolder) -> None:
    program = canary_program(backing, Ports(9000, canary=True), data, {"PULSEGATE_CANARY_KEY": "elsewhere"})
    assert program.ports == {"operations": 9016}
    assert program.environment["PULSEGATE_CANARY_URL"] == "http://127.0.0.1:9000"
    assert program.environment["PULSEGATE_CANARY_KEY_FILE"] == str(data.secrets / "canary_key")
    assert not {"PULSEGATE_CANARY_KEY", "PULSEGATE_SERVICE_TOKEN_FILE"} & set(program.environment)


def test_secrets_are_generated_once(data: DataFolder) -> None:
    first = backing_servers(data, PORTS, prometheus_binary=None)
    second = backing_servers(data, PORTS, prometheus_binary=None)
    assert first.postgres.password == second.postgres.password
    assert first.postgres.password != first.valkey.password
