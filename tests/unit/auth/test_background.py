"""What works in the background ends with its owner, although a client of the database forgets a cancellation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.postgres import Database
from services.auth.audit_chain import HeadSignature
from services.auth.audit_heads import HeadSigner
from services.auth.feed import CredentialFeed
from services.auth.master_key import MasterKey
from services.auth.signing_keys import KeyRing
from services.auth.storage.audit import AnchorStorage, AuditStorage, SignedHeadStorage
from services.auth.storage.feed import FeedStorage
from services.auth.storage.signing_keys import SigningKeyStorage


class HangingDatabase:
    """Never answers, and forgets the first cancellation, as `asyncio.wait_for` may before Python 3.12."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self._forgetful = True

    @asynccontextmanager
    async def transaction(self, **_: Any) -> AsyncIterator[None]:
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not self._forgetful:
                raise
            self._forgetful = False
            raise Unavailable("The database is away.") from None
        yield


def reading(database: Database) -> AbstractAsyncContextManager[None]:
    return CredentialFeed(database, FeedStorage()).reading()


def keeping_keys_fresh(database: Database) -> AbstractAsyncContextManager[None]:
    master_key = MasterKey(bytes(32))
    life = timedelta(days=1)
    ring = KeyRing(database, SigningKeyStorage(), master_key, SystemClock(), period=life, longest_token=life)
    return ring.keeping_fresh()


def signing_audit_heads(database: Database) -> AbstractAsyncContextManager[None]:
    signature = HeadSignature(Ed25519PrivateKey.generate())
    return HeadSigner(
        database, AuditStorage(), SignedHeadStorage(), AnchorStorage(), signature, SystemClock()
    ).signing()


@pytest.mark.parametrize("working", [reading, keeping_keys_fresh, signing_audit_heads])
async def test_work_in_the_background_ends_although_a_cancellation_is_forgotten(working: Any) -> None:
    database, before = HangingDatabase(), asyncio.all_tasks()
    async with asyncio.timeout(20):
        async with working(cast("Database", database)):
            await database.waiting.wait()
    assert asyncio.all_tasks() == before
