"""`python -m services.ingest regroup`: as many lanes as PULSEGATE_LOG_LANES says, instead of as many as there were.

Everything in the state is keyed by partition, so that none of it moves. What must be certain is that all that the log
holds is in the state, and that nobody goes on with the lanes of before. So the log is closed, which refuses batches
(503) until it takes those of the new lanes; receivers with the old number stay refused, and owners of old lanes are
fenced off. Ended in the middle, it may be run again, with either number.
"""

import asyncio

from chassis import postgres
from chassis.errors import PulsegateError
from services.ingest import lane_groups, log
from services.ingest.checkpoints import AGGREGATOR_ROLE
from services.ingest.errors import NotDrainedError
from services.ingest.settings import AggregatorSettings

_CONNECT_SECONDS = 10.0


async def regroup(settings: AggregatorSettings) -> str:
    """What was done, in a line. Raises SystemExit where that cannot be; batches in no state leave all as it was."""
    try:
        return await _regroup(settings)
    except (PulsegateError, TimeoutError) as error:
        raise SystemExit(f"Postgres or the log is away, run it again: {error}") from error


async def _regroup(settings: AggregatorSettings) -> str:
    async with log.connected(settings, "pulsegate regroup") as stream, postgres.connected(settings.dsn) as database:
        async with asyncio.timeout(_CONNECT_SECONDS):
            while not stream.client.is_connected:  # noqa: ASYNC110 # it tells of no event
                await asyncio.sleep(0.05)
        async with database.transaction(role=AGGREGATOR_ROLE) as connection:
            before = await lane_groups.read(connection)
        if before.lanes == settings.lanes:
            await stream.take_only(stream.subject("*"))
            return f"There are {settings.lanes} lanes already."
        await stream.take_only(f"{stream.stream}.closed")
        try:
            held = {lane: await stream.last(stream.subject(lane, before.lanes)) for lane in before.worked_on}
            async with database.transaction(role=AGGREGATOR_ROLE) as connection:
                await lane_groups.change(connection, settings.lanes, held)
        except NotDrainedError as error:
            await stream.take_only(stream.subject("*", before.lanes))
            raise SystemExit(f"Nothing was changed: {error}.") from error
        await stream.take_only(stream.subject("*"))
        await stream.forget(stream.subject("*", before.lanes))
        return f"There are {settings.lanes} lanes now, {before.lanes} before."
