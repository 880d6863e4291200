"""`python -m services.ingest regroup`: as many lanes as PULSEGATE_LOG_LANES says, instead of as many as there were.

Everything in the state is keyed by partition, so that none of it moves. What must be certain is that all that the log
holds is in the state, and that nobody goes on with the lanes of before. So the log is closed, which refuses batches
(503) until it takes those of the new lanes; receivers with the old number stay refused, and owners of old lanes are
fenced off. Ended in the middle, it is run again, with either number: until then the log stays closed.
"""

import asyncio

from chassis import postgres
from chassis.errors import PulsegateError
from services.ingest import log
from services.ingest.errors import NotDrainedError
from services.ingest.settings import AggregatorSettings
from services.ingest.storage import lane_groups
from services.ingest.storage.leases import AGGREGATOR_ROLE

_CONNECT_SECONDS = 10.0


async def regroup(settings: AggregatorSettings) -> str:
    """What was done, in a line. Raises SystemExit where that cannot be."""
    try:
        return await _regroup(settings)
    except NotDrainedError as error:
        raise SystemExit(f"Nothing was changed: {error}.") from error
    except (PulsegateError, TimeoutError) as error:
        raise SystemExit(
            f"Ended in the middle, the log may refuse batches until this is run again: {error or 'no connection'}"
        ) from error


async def _regroup(settings: AggregatorSettings) -> str:
    async with log.connected(settings, "pulsegate regroup") as stream, postgres.connected(settings.dsn) as database:
        async with asyncio.timeout(_CONNECT_SECONDS):
            while not stream.client.is_connected:  # noqa: ASYNC110 # it tells of no event
                await asyncio.sleep(0.05)
        closed_to = await stream.close()
        held = await stream.held()
        try:
            async with database.transaction(role=AGGREGATOR_ROLE) as connection:
                before = await lane_groups.change(connection, settings.lanes, held)
        except NotDrainedError as error:
            await stream.open(closed_to or error.lanes)
            raise
        await stream.open(settings.lanes)
        for place in held:
            if place.lanes != settings.lanes:
                await stream.forget(place)
    if before == settings.lanes:
        return f"There are {settings.lanes} lanes already."
    return f"There are {settings.lanes} lanes now, {before} before."
