"""When keys were used last, noted in batches.

A gateway asks for its verdict on a key in use at least once in the life of a principal (`PULSEGATE_PRINCIPAL_SECONDS`),
and only for keys in use. So what is noted here is true within two minutes or so, and costs a busy key nothing.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from chassis import logs
from chassis.clock import Clock, from_unix_ms
from chassis.errors import Unavailable
from chassis.postgres import Database
from chassis.tasks import heed_cancellation, in_background
from services.auth.domain import KeyId
from services.auth.storage.keys import KEY_USAGE_ROLE, KeyUsageStorage

log = logs.get(__name__)

_NOTING_SECONDS = 10.0


class KeyUsage:
    """Remembers uses and stores them while `noting` is open, and at its end."""

    def __init__(self, database: Database, storage: KeyUsageStorage, clock: Clock) -> None:
        self._database = database
        self._storage = storage
        self._clock = clock
        self._used_at: dict[KeyId, datetime] = {}

    def used(self, key_id: KeyId) -> None:
        """Now."""
        self._used_at[key_id] = from_unix_ms(self._clock.now_ms())

    @asynccontextmanager
    async def noting(self) -> AsyncIterator[None]:
        try:
            async with in_background(self._keep_noting()):
                yield
        finally:
            await self._note()

    async def _keep_noting(self) -> None:
        while True:
            await self._clock.sleep(_NOTING_SECONDS)
            await self._note()
            heed_cancellation()

    async def _note(self) -> None:
        """What cannot be stored is stored the next time."""
        noted, self._used_at = self._used_at, {}
        if not noted:
            return
        try:
            async with self._database.transaction(role=KEY_USAGE_ROLE) as connection:
                await self._storage.note(connection, noted)
        except Unavailable as error:
            log.warning("uses of keys not noted", reason=str(error))
            self._used_at = {**noted, **self._used_at}
