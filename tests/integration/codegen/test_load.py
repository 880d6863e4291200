"""Large definitions, and many who want clients of them at once: what is under way is bounded, and fair by tenant."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from chassis import grpc_client
from chassis.breakers import upstream_fault
from chassis.errors import Invalid, Unavailable
from contracts.pulsegate.codegen.v1 import codegen_pb2
from contracts.pulsegate.config.v1.definitions_pb2 import Label, Metric
from deploy.local.layout import Ports
from services.codegen import domain, outputters
from tests.integration.codegen.service import KEY, SERVICE_TOKEN, Codegen, start
from tests.integration.codegen.upstreams import PROJECT, Upstreams, metric
from tests.suite_database import Database
from tests.waiting import eventually

JAVASCRIPT, PYTHON = codegen_pb2.LANGUAGE_JAVASCRIPT, codegen_pb2.LANGUAGE_PYTHON
OTHER_TENANT = "0192f0c1-0000-7000-8000-0000000000f1"
OTHER_PROJECT = "0192f0c1-0000-7000-8000-0000000000f2"
THIRD_TENANT = "0192f0c1-0000-7000-8000-0000000000f3"
THIRD_PROJECT = "0192f0c1-0000-7000-8000-0000000000f4"
#: What the chart gives the service.
_MOST_RESIDENT_KB = 512 << 10


def _large() -> list[Metric]:
    """As many bytes as a project may have, in the values that take up the most memory: very many short ones."""
    values = ["".join(pair) for pair in product("abcdefghijklmnopqrstuvwxyzABCDEF", repeat=2)][:1000]
    labels = [Label(name=f"label_{number}", values=values) for number in range(16)]
    return [metric(f"part_{number}_total", number=number, labels=labels) for number in range(88)]


class Rendering:
    """Renders that take until they are let go, and how many are under way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.begun: list[str] = []
        self.under_way = self.most = 0
        self._render = outputters.render
        monkeypatch.setattr(outputters, "render", self._slowly)

    def _slowly(self, definitions: Any, *others: Any) -> Any:
        self.begun.append(definitions.project_id)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            assert self.go.wait(30)
            return self._render(definitions, *others)
        finally:
            self.under_way -= 1

    async def have_begun(self, count: int) -> None:
        async def begun() -> bool:
            return len(self.begun) >= count

        await eventually(begun, what=f"{count} renders have begun")


@pytest.fixture
def rendering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rendering]:
    held = Rendering(monkeypatch)
    yield held
    held.go.set()


def _variants(codegen: Codegen, count: int, **whose: str) -> list["asyncio.Task[Any]"]:
    return [
        asyncio.create_task(codegen.generate(language=PYTHON, publishable_key=f"{KEY}{number}", **whose))
        for number in range(count)
    ]


async def test_two_tenants_have_a_turn_at_a_time_and_one_client_is_rendered(
    codegen: Codegen, rendering: Rendering
) -> None:
    rendering.go.set()
    wanted = _variants(codegen, 6) + _variants(codegen, 6, tenant=OTHER_TENANT, project=OTHER_PROJECT)
    clients = await asyncio.gather(*wanted)
    assert len({client.sha256 for client in clients}) == 12
    assert rendering.most == 1


async def test_nobody_waits_for_all_that_another_tenant_has_asked_for(codegen: Codegen, rendering: Rendering) -> None:
    wanted = _variants(codegen, 6)
    await rendering.have_begun(1)
    wanted += _variants(codegen, 1, tenant=OTHER_TENANT, project=OTHER_PROJECT)
    await asyncio.sleep(0.3)
    rendering.go.set()
    await asyncio.gather(*wanted)
    assert rendering.begun[:3] == [PROJECT, OTHER_PROJECT, PROJECT]


async def test_what_was_generated_before_is_answered_while_the_renders_of_others_take_long(
    codegen: Codegen, rendering: Rendering
) -> None:
    thirds = {"tenant": THIRD_TENANT, "project": THIRD_PROJECT}
    rendering.go.set()
    known = await codegen.generate(language=PYTHON, **thirds)
    rendering.go.clear()
    wanted = _variants(codegen, 6) + _variants(codegen, 6, tenant=OTHER_TENANT, project=OTHER_PROJECT)
    wanted += _variants(codegen, 1, **thirds)
    await rendering.have_begun(2)
    async with asyncio.timeout(2):
        assert await codegen.generate(language=PYTHON, **thirds) == known
        assert (await codegen.artifact(known.sha256, **thirds)).content == known.content
    rendering.go.set()
    await asyncio.gather(*wanted)


async def test_who_asks_while_config_is_asked_gets_what_is_defined_by_then_and_many_ask_it_once(
    codegen: Codegen, upstreams: Upstreams
) -> None:
    def config_asked(times: int) -> Callable[[], Awaitable[bool]]:
        return lambda: asyncio.sleep(0, upstreams.config.asked >= times)

    config = upstreams.config
    config.metrics[PROJECT] = [metric("new_total")]
    new = await codegen.generate(language=PYTHON)
    config.metrics[PROJECT] = [metric("old_total")]
    old, asked = await codegen.generate(language=PYTHON), config.asked
    config.answers.clear()
    first = asyncio.create_task(codegen.generate(language=PYTHON))
    await eventually(config_asked(asked + 1), what="config is asked")
    config.metrics[PROJECT] = [metric("new_total")]
    later = [asyncio.create_task(codegen.generate(language=PYTHON)) for _ in range(20)]
    await asyncio.sleep(0.5)
    config.answers.set()
    assert await first == old
    assert {answer.sha256 for answer in await asyncio.gather(*later)} == {new.sha256}
    assert config.asked < asked + 10


async def test_a_render_whose_caller_has_given_up_keeps_its_turn_until_it_ends(
    codegen: Codegen, rendering: Rendering
) -> None:
    [given_up] = _variants(codegen, 1)
    await rendering.have_begun(1)
    given_up.cancel()
    await asyncio.wait([given_up])
    [next_one] = _variants(codegen, 1)
    await asyncio.sleep(0.3)
    assert rendering.begun == [PROJECT]
    rendering.go.set()
    assert (await next_one).content
    assert rendering.most == 1


async def test_who_waits_for_too_long_is_refused_in_time_which_says_nothing_against_the_service(
    codegen: Codegen, rendering: Rendering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.timely_turns._LONGEST_WAIT_SECONDS", 0.1)
    [first] = _variants(codegen, 1)
    await rendering.have_begun(1)
    [second] = _variants(codegen, 1)
    with pytest.raises(Unavailable) as refused:
        await second
    assert refused.value.details == {"waitingFor": "turn"}
    assert not upstream_fault(refused.value)
    rendering.go.set()
    assert (await first).content


async def test_a_client_that_would_be_too_large_is_refused_and_not_kept(
    codegen: Codegen, upstreams: Upstreams, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain, "MOST_CLIENT_BYTES", 200_000)
    labels = [Label(name="label", values=[f"{number:03}" + "\n" * 197 for number in range(1000)])]
    upstreams.config.metrics[PROJECT] = [metric("a_total", labels=labels)]
    with pytest.raises(Invalid) as refused:
        await codegen.generate(language=PYTHON)
    assert (refused.value.code, refused.value.details) == ("CLIENT_TOO_LARGE", {"limit": 200_000})
    assert (await codegen.generate(language=JAVASCRIPT, minify=True)).content, "has no values"


@pytest.fixture
async def own_process(
    upstreams: Upstreams, database: Database, port_blocks: Callable[[], Ports]
) -> AsyncIterator[tuple[Codegen, int]]:
    """The service in a process of its own, and that one's id."""
    ports = port_blocks()
    process = await start(
        PULSEGATE_OPS_PORT=str(ports.operations("codegen")),
        PULSEGATE_GRPC_PORT=str(ports.grpc("codegen")),
        PULSEGATE_SERVICE_TOKEN=SERVICE_TOKEN,
        PULSEGATE_POSTGRES_DSN=database.dsn("codegen"),
        PULSEGATE_AUTH_ADDRESS=upstreams.address,
        PULSEGATE_CONFIG_ADDRESS=upstreams.address,
        COVERAGE_PROCESS_CONFIG="",  # what measures coverage takes memory, and most of the time
        COVERAGE_PROCESS_START="",
    )
    async with grpc_client.connected("codegen", f"127.0.0.1:{ports.grpc('codegen')}", SERVICE_TOKEN) as channel:
        async with asyncio.timeout(60):
            await channel.ready()
        yield Codegen(channel=channel, auth=upstreams.auth, ports=ports), process.pid
    process.terminate()
    await asyncio.wait_for(process.communicate(), 30)


@pytest.mark.alone
async def test_many_who_want_clients_of_large_definitions_take_up_no_more_memory_than_there_is(
    own_process: tuple[Codegen, int], upstreams: Upstreams
) -> None:
    codegen, process_id = own_process
    for project in (PROJECT, OTHER_PROJECT):
        upstreams.config.metrics[project] = _large()
    for _ in range(2):
        wanted = _variants(codegen, 10) + _variants(codegen, 10, tenant=OTHER_TENANT, project=OTHER_PROJECT)
        answers = await asyncio.gather(*wanted, return_exceptions=True)
        made = [answer.sha256 for answer in answers if not isinstance(answer, BaseException)]
        assert made
        await asyncio.gather(*(codegen.artifact(sha256) for sha256 in made[:1] * 40), return_exceptions=True)
    assert _most(process_id) < _MOST_RESIDENT_KB


def _most(process_id: int) -> int:
    """The most memory that a process has ever had, in KiB."""
    return int(Path(f"/proc/{process_id}/status").read_text().split("VmHWM:")[1].split()[0])
