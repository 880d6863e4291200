"""`run` keeps everything running on this machine until Ctrl-C; `demo` does so after a tenant with real traffic.

`servers` keeps the backing servers alone running, for `pulsegate restore`.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial

from chassis import open_files
from chassis.settings import SettingsError, load
from deploy.local.bootstrap import MigrationFailed
from deploy.local.demo.api import ApiError
from deploy.local.demo.clients import TrafficFailed
from deploy.local.demo.story import tell
from deploy.local.progress import say
from deploy.local.prometheus import NotAProgram, PrometheusMissing
from deploy.local.servers import PreparationFailed
from deploy.local.services import faults_in
from deploy.local.settings import Settings
from deploy.local.stack import Stack, StackError, running_stack
from deploy.local.supervisor import StartFailed, stop_requests
from pulsegate.canary import CanaryError

_FAILURES = (
    StackError,
    StartFailed,
    PreparationFailed,
    MigrationFailed,
    NotAProgram,
    PrometheusMissing,
    ApiError,
    CanaryError,
    TrafficFailed,
    TimeoutError,
    OSError,
)

Use = Callable[[Stack], Awaitable[int]]


def main() -> int:
    """Returns the exit status: 0 when it was asked to stop, 1 when something failed, 78 for wrong settings."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="everything until Ctrl-C")
    commands.add_parser("servers", help="the backing servers alone until Ctrl-C")
    demo = commands.add_parser("demo", help="everything, with a tenant, real traffic and its numbers")
    demo.add_argument("--exit", action="store_true", help="stop after the numbers, with status 1 where they differ")
    arguments = parser.parse_args()
    open_files.allow_all()
    try:
        return asyncio.run(_until_asked_to_stop(_work(arguments, _settings())))
    except SettingsError as error:
        sys.stderr.writelines(f"{fault}\n" for fault in error.faults)
        return os.EX_CONFIG
    except _FAILURES as error:
        sys.stderr.write(f"\n{error}\n")
        return 1


def _settings() -> Settings:
    """Raises SettingsError with every fault, those of the services' settings too, and one of each setting."""
    try:
        return load(Settings, os.environ)
    except SettingsError as error:
        named = {fault.partition(":")[0] for fault in error.faults}
        further = [fault for fault in faults_in(os.environ) if fault.partition(":")[0] not in named]
        raise SettingsError([*error.faults, *further]) from error


async def _until_asked_to_stop(work: Coroutine[None, None, int]) -> int:
    asked = asyncio.create_task(stop_requests().wait())
    working = asyncio.create_task(work)
    await asyncio.wait([asked, working], return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.wait([working])
    return 0


async def _work(arguments: argparse.Namespace, settings: Settings) -> int:
    match arguments.command:
        case "run":
            return await _serve(settings, _run)
        case "servers":
            return await _serve(settings, _keep_servers, servers_alone=True)
        case _:
            return await _serve(settings, partial(_demo, stay=not arguments.exit), need_prometheus=True)


async def _serve(settings: Settings, use: Use, *, need_prometheus: bool = False, servers_alone: bool = False) -> int:
    running = running_stack(settings, os.environ, need_prometheus=need_prometheus, servers_alone=servers_alone)
    async with running as stack:
        return await use(stack)


async def _run(stack: Stack) -> int:
    _say_where(stack)
    await asyncio.Event().wait()
    return 0


async def _keep_servers(stack: Stack) -> int:
    say(f"The backing servers of {stack.data.root} run alone. Ctrl-C stops them.")
    await asyncio.Event().wait()
    return 0


async def _demo(stack: Stack, *, stay: bool) -> int:
    agreed = await tell(stack)
    if agreed and stay:
        return await _run(stack)
    return 0 if agreed else 1


def _say_where(stack: Stack) -> None:
    say(f"Pulsegate   {stack.address}\nLogs        {stack.data.logs}\nMails       {stack.data.mails}\nCtrl-C stops it.")


if __name__ == "__main__":
    sys.exit(main())
