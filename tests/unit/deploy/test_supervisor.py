"""The supervisor with small real processes: order, restarts, failures, ends."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.local.layout import CHECKOUT
from deploy.local.programs import NotReady, Program
from deploy.local.supervisor import StartFailed, Supervisor
from tests.waiting import eventually

NewProgram = Callable[..., Program]


@pytest.fixture
def new_program(tmp_path: Path) -> NewProgram:
    def new(name: str = "sleeper", code: str = "import time; time.sleep(60)", **options: Any) -> Program:
        options = {"probe": lambda: None, "ports": {}, "ready_seconds": 60.0, **options}
        return Program(name=name, argv=(sys.executable, "-c", code), log=tmp_path / f"{name}.log", **options)

    return new


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(tmp_path / "run.json", {"address": "http://here"})
    yield supervisor
    await supervisor.stop()


def described(tmp_path: Path) -> dict[str, Any]:
    text: dict[str, Any] = json.loads((tmp_path / "run.json").read_text())
    return text


def process(tmp_path: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in described(tmp_path)["processes"] if entry["name"] == name)
    return found


async def test_what_runs_is_written_down(supervisor: Supervisor, new_program: NewProgram, tmp_path: Path) -> None:
    await supervisor.start([new_program("a", ports={"http": 1234})])
    await supervisor.start([new_program("b")])
    assert described(tmp_path)["address"] == "http://here"
    assert described(tmp_path)["pid"] == os.getpid()
    assert process(tmp_path, "a")["ports"] == {"http": 1234}
    assert process(tmp_path, "b")["restarts"] == 0


async def test_what_is_killed_runs_again_at_once(
    supervisor: Supervisor, new_program: NewProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.supervisor._BACKOFF_SECONDS", (0.0, 3600.0))
    telling = "import os, time; print('restarts', os.environ['PULSEGATE_RESTARTS'], flush=True); time.sleep(60)"
    await supervisor.start([a := new_program("a", telling)])
    old = process(tmp_path, "a")["pid"]

    async def told() -> bool:
        return "restarts 0" in a.log.read_text()

    await eventually(told, within_seconds=60.0, what="how often it was restarted")
    os.kill(old, signal.SIGKILL)

    async def replaced() -> bool:
        return process(tmp_path, "a")["pid"] not in (old, None)

    await eventually(replaced, what="another process")
    assert process(tmp_path, "a")["restarts"] == 1

    async def told_again() -> bool:
        return "restarts 1" in a.log.read_text()

    await eventually(told_again, within_seconds=60.0, what="how often it was restarted")


async def test_what_waits_for_its_restart_has_no_process_id(
    supervisor: Supervisor, new_program: NewProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.supervisor._BACKOFF_SECONDS", (3600.0,))
    await supervisor.start([new_program("a", ports={"http": 1234}), new_program("b")])
    os.kill(process(tmp_path, "a")["pid"], signal.SIGKILL)

    async def ended() -> bool:
        return process(tmp_path, "a")["pid"] is None

    await eventually(ended, what="run.json with the process that has ended, and without its process id")
    assert process(tmp_path, "a")["ports"] == {"http": 1234}
    assert process(tmp_path, "b")["pid"] is not None


async def test_all_that_a_process_wrote_is_in_its_log_when_it_has_stopped(
    supervisor: Supervisor, new_program: NewProgram
) -> None:
    def probe() -> None:
        if "begun" not in program.log.read_text():
            raise NotReady("starting")

    code = (
        "import signal, sys\n"
        "def end(*_):\n  print('last\\n' * 5000); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('begun', flush=True); signal.pause()"
    )
    program = new_program("talker", code, probe=probe)
    await supervisor.start([program])
    await supervisor.stop()
    assert program.log.read_text().count("last") == 5000


async def test_start_waits_until_the_probe_is_content(
    supervisor: Supervisor, new_program: NewProgram, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"

    def probe() -> None:
        if not mark.exists():
            raise NotReady("no mark yet")

    code = f"import time, pathlib; time.sleep(0.2); pathlib.Path({str(mark)!r}).touch(); time.sleep(60)"
    await supervisor.start([new_program("a", code, probe=probe)])
    assert mark.exists()


async def test_a_program_that_never_becomes_ready_is_named_with_its_reason_and_its_log(
    supervisor: Supervisor, new_program: NewProgram
) -> None:
    def probe() -> None:
        raise NotReady("postgres is down")

    code = "print('what went wrong', flush=True); import time; time.sleep(60)"
    with pytest.raises(StartFailed, match=r"(?s)slow was not ready within 5 s: postgres is down.*what went wrong"):
        await supervisor.start([new_program("slow", code, probe=probe, ready_seconds=5.0), new_program("a")])


async def test_a_program_that_dies_when_started_is_given_up(supervisor: Supervisor, new_program: NewProgram) -> None:
    def probe() -> None:
        raise NotReady("nothing listens")

    with pytest.raises(StartFailed, match=r"(?s)broken dies when started: exit status 78.*PULSEGATE_X is required"):
        await supervisor.start([new_program("broken", "print('PULSEGATE_X is required'); exit(78)", probe=probe)])


async def test_a_program_whose_traces_cannot_be_cleared_is_tried_again(
    supervisor: Supervisor, new_program: NewProgram, tmp_path: Path
) -> None:
    faults = [ValueError("no number"), KeyError("pid")]

    def clear_up() -> None:
        if faults:
            raise faults.pop()

    await supervisor.start([new_program("a", clear_up=clear_up, probe=lambda: None)])
    assert process(tmp_path, "a")["restarts"] == 2


async def test_what_keeps_a_program_from_starting_is_told(supervisor: Supervisor, new_program: NewProgram) -> None:
    def clear_up() -> None:
        raise ValueError("no number")

    with pytest.raises(StartFailed, match="no number"):
        await supervisor.start([new_program("a", clear_up=clear_up, ready_seconds=1.0)])


async def test_a_program_that_is_not_there_is_named(supervisor: Supervisor, tmp_path: Path) -> None:
    absent = Program(name="absent", argv=("/nowhere/absent",), log=tmp_path / "log", ports={}, probe=lambda: None)
    with pytest.raises(StartFailed, match="No such file or directory: '/nowhere/absent'"):
        await supervisor.start([absent])


async def test_stages_stop_in_the_opposite_order_of_their_start(
    supervisor: Supervisor, new_program: NewProgram, tmp_path: Path
) -> None:
    ended = tmp_path / "ended"
    ended.touch()

    def noting(name: str) -> Program:
        ready = tmp_path / f"{name}.ready"
        code = (
            "import signal, pathlib, sys\n"
            f"def end(*_):\n  open({str(ended)!r}, 'a').write('{name} '); sys.exit()\n"
            "signal.signal(signal.SIGTERM, end)\n"
            f"pathlib.Path({str(ready)!r}).touch()\n"
            "signal.pause()"
        )

        def probe() -> None:
            if not ready.exists():
                raise NotReady("starting")

        return new_program(name, code, probe=probe)

    for name in ("first", "second", "third"):
        await supervisor.start([noting(name)])
    await supervisor.stop()
    assert ended.read_text().split() == ["third", "second", "first"]
    assert not (tmp_path / "run.json").exists()


async def test_what_does_not_end_when_asked_is_killed(
    supervisor: Supervisor, new_program: NewProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.supervisor._STOP_SECONDS", 0.3)
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    program = new_program("deaf", code)
    await supervisor.start([program])

    async def deaf() -> bool:
        return "deaf" in program.log.read_text()

    await eventually(deaf)
    pid = process(tmp_path, "deaf")["pid"]
    await asyncio.wait_for(supervisor.stop(), 60)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_several_signals_at_once_are_one_request_to_stop() -> None:
    code = (
        "import asyncio\n"
        "from deploy.local import supervisor\n"
        "supervisor._ONE_REQUEST_SECONDS = 60.0\n"
        "async def main():\n"
        "  asked = supervisor.stop_requests()\n"
        "  print('ready', flush=True)\n"
        "  await asked.wait()\n"
        "  print('stopping', flush=True)\n"
        "  await asyncio.to_thread(input)\n"
        "  print('stopped in order', flush=True)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate("\n", timeout=60)
        assert (rest, process.returncode) == ("stopped in order\n", 0)
