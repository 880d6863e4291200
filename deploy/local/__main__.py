"""`run` keeps everything running on this machine until Ctrl-C; `demo` does so after a tenant with real traffic."""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from chassis.settings import SettingsError, load
from deploy.local.bootstrap import MigrationFailed
from deploy.local.progress import say
from deploy.local.prometheus import PrometheusMissing
from deploy.local.servers import PreparationFailed
from deploy.local.settings import Settings
from deploy.local.stack import Stack, StackError, running_stack
from deploy.local.supervisor import StartFailed, stop_requests

_FAILURES = (StackError, StartFailed, PreparationFailed, MigrationFailed, PrometheusMissing, OSError)


def main() -> int:
    """Returns the exit status: 0 when it was asked to stop, 1 when something failed, 78 for wrong settings."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    parser.add_argument("command", choices=["run"])
    parser.parse_args()
    try:
        settings = load(Settings, os.environ)
        return asyncio.run(_until_asked_to_stop(settings, _run))
    except SettingsError as error:
        sys.stderr.writelines(f"{fault}\n" for fault in error.faults)
        return os.EX_CONFIG
    except _FAILURES as error:
        sys.stderr.write(f"\n{error}\n")
        return 1


async def _until_asked_to_stop(settings: Settings, use: Callable[[Stack], Awaitable[int]]) -> int:
    asked = asyncio.create_task(stop_requests().wait())
    serving = asyncio.create_task(_serve(settings, use))
    await asyncio.wait([asked, serving], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        return serving.result()
    serving.cancel()
    await asyncio.wait([serving])
    return 0


async def _serve(settings: Settings, use: Callable[[Stack], Awaitable[int]]) -> int:
    async with running_stack(settings, os.environ) as stack:
        return await use(stack)


async def _run(stack: Stack) -> int:
    say(f"\nPulsegate   {stack.address}\nLogs        {stack.data.logs}\nCtrl-C stops it.")
    await asyncio.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
