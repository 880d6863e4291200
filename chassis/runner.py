"""Runs a service as a process: settings, logs, traces, signals, and an end within the grace period."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import uvloop

from chassis import (
    error_reports,
    failpoints,
    logs,
    migrations,
    open_files,
    profiling,
    secrets,
    settings,
    trace_sampling,
    tracing,
)
from chassis.clock import SystemClock

log = logs.get(__name__)

EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h

T = TypeVar("T")


S = TypeVar("S", bound=settings.ServiceSettings)


def read_settings(service: str, settings_class: type[T]) -> T:
    """The settings from the environment. Names every fault on standard error and exits where there is one."""
    try:
        return settings.load(settings_class)
    except settings.SettingsError as error:
        sys.stderr.write(f"pulsegate-{service} cannot start, {len(error.faults)} setting(s) at fault:\n")
        sys.stderr.writelines(f"  {fault}\n" for fault in error.faults)
        raise SystemExit(EXIT_CONFIGURATION) from error


def run(service: str, settings_class: type[S], running: Callable[[S], AbstractAsyncContextManager[Any]]) -> None:
    """Runs `running(settings)` until SIGTERM or SIGINT, then leaves it, which drains and closes everything."""
    loaded = read_settings(service, settings_class)
    logs.configure(service, loaded.log_level)
    open_files.allow_all()
    _collect_seldom()
    seed = loaded.failpoints_seed
    failpoints.arm(loaded.failpoints, life=f"{seed} {service} {loaded.restarts}" if seed else None)
    if failpoints.ARMED:
        log.warning("failpoints are armed: this process fails on purpose", points=sorted(failpoints.ARMED))

    async def main() -> None:
        stop = _stop_signal()
        async with secrets.followed(loaded.secrets.values(), SystemClock()), running(loaded):
            log.info("running", pid=os.getpid())
            await stop.wait()
            log.info("stopping")
        log.info("stopped")

    sampler = trace_sampling.sampler(loaded.traces_sampler, loaded.traces_sampler_ratio)
    with (
        error_reports.reporting(service, loaded.sentry_dsn),
        tracing.exporting(service, loaded.otlp_endpoint, sampler),
        profiling.pushing(service, loaded.profiles_url),
    ):
        run_loop(main())


def _collect_seldom() -> None:
    """Looks for cycles of garbage a hundred times less often than Python does by itself.

    A busy service makes many objects that live for a request and few cycles; looking through them all took a quarter to
    half of its time.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def migrate(schema: str, folder: Path) -> None:
    """`python -m services.<name> migrate`: brings the schema up to date."""
    loaded = read_settings(f"{schema} migrate", settings.MigrationSettings)
    logs.configure(schema)
    try:
        run_loop(migrations.migrate(schema, folder, loaded.owner_dsn))
    except (psycopg.Error, migrations.MigrationError) as error:
        raise SystemExit(f"{schema} cannot be migrated: {error}") from error


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
