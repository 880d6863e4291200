"""What ingestion does about clients that lose a request to end."""

import asyncio

from services.ingest.log import heed_cancellation


async def test_a_loop_ends_although_its_client_has_lost_the_request() -> None:
    waits = 0

    async def careless_client() -> None:
        nonlocal waits
        waits += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    async def loop() -> None:
        while True:
            await careless_client()
            heed_cancellation()

    looping = asyncio.create_task(loop())
    await asyncio.sleep(0)
    looping.cancel()
    await asyncio.wait([looping], timeout=5.0)
    assert looping.cancelled()
    assert waits == 1
