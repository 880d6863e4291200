"""The Ed25519 keys that sign access tokens and principals, and their rotation with overlap.

A key is published an hour before it signs, so that every verifier knows it by then, and stays published until
everything that it signed has expired. All replicas read and rotate in one transaction under an advisory lock, so they
agree on the keys; which one signs follows from its `signs_from`.
"""

import itertools
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.algorithms import OKPAlgorithm

from chassis import logs
from chassis.clock import Clock, from_unix_ms
from chassis.errors import Unavailable
from chassis.postgres import Database
from chassis.tasks import in_background
from services.auth import metrics
from services.auth.errors import SigningKeysMissing
from services.auth.master_key import MasterKey, WrongMasterKey
from services.auth.storage.signing_keys import SealedKey, SigningKeyStorage

log = logs.get(__name__)

#: A key is published for so long before it signs: longer than any verifier keeps the keys it has read.
PUBLISHED_AHEAD = timedelta(hours=1)

#: Clocks may differ by so much between the process that signs and the one that verifies.
_CLOCK_SKEW = timedelta(minutes=5)

_REFRESH_SECONDS = 30.0
_RETRY_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """One key, ready to sign."""

    id: str
    private_key: Ed25519PrivateKey
    signs_from: datetime

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public half (RFC 8037)."""
        jwk = json.loads(OKPAlgorithm.to_jwk(self.private_key.public_key()))
        return {**jwk, "kid": self.id, "use": "sig", "alg": "EdDSA"}


class KeyRing:
    """The published keys as this process last read them."""

    def __init__(
        self,
        database: Database,
        storage: SigningKeyStorage,
        master_key: MasterKey,
        clock: Clock,
        *,
        period: timedelta,
        longest_token: timedelta,
    ) -> None:
        self._database = database
        self._storage = storage
        self._master_key = master_key
        self._clock = clock
        self._period = period
        self._retired_after = longest_token + _CLOCK_SKEW
        #: From the oldest; empty until they have been read.
        self._keys: Sequence[SigningKey] = ()
        self._trouble = "not read yet"

    def signer(self) -> SigningKey:
        """The key that signs now. Raises SigningKeysMissing."""
        if not self._keys:
            raise SigningKeysMissing(self._trouble)
        now = self._now()
        # The very first key was made by a replica whose clock may be a little ahead: it signs all the same.
        return next((key for key in reversed(self._keys) if key.signs_from <= now), self._keys[0])

    def public_key(self, key_id: str) -> Ed25519PublicKey | None:
        """The public half of a published key. Raises SigningKeysMissing until the keys have been read."""
        if not self._keys:
            raise SigningKeysMissing(self._trouble)
        return next((key.private_key.public_key() for key in self._keys if key.id == key_id), None)

    async def jwks(self) -> str:
        """The published keys as a JWK set (RFC 7517). Raises SigningKeysMissing until they have been read."""
        if not self._keys:
            raise SigningKeysMissing(self._trouble)
        return json.dumps({"keys": [key.public_jwk for key in self._keys]})

    async def probe(self) -> None:
        """A health check. Raises SigningKeysMissing until the keys have been read."""
        self.signer()

    async def refresh(self) -> None:
        """Reads the keys, making the first or the next one and dropping retired ones where it is time.

        Raises Unavailable where the database is away, WrongMasterKey where the keys cannot be decrypted.
        """
        async with self._database.transaction(door="signing_keys") as connection:
            await self._storage.lock(connection)
            keys = [self._unseal(sealed) for sealed in await self._storage.all(connection)]
            retired = self._retired(keys)
            if retired:
                await self._storage.delete(connection, [key.id for key in retired])
            fresh = self._due(keys)
            if fresh is not None:
                await self._storage.insert(connection, self._seal(fresh), self._now())
        self._keys = [key for key in (*keys, *filter(None, [fresh])) if key not in retired]
        if fresh is not None:
            log.info("signing key made", key_id=fresh.id, signs_from=fresh.signs_from.isoformat())
        metrics.SIGNING_KEYS.set(len(self._keys))
        metrics.SIGNING_KEY_AGE_SECONDS.set((self._now() - self.signer().signs_from).total_seconds())

    @asynccontextmanager
    async def keeping_fresh(self) -> AsyncIterator[None]:
        """Refreshes now and then while open; tries again soon while that fails."""
        async with in_background(self._keep_fresh()):
            yield

    async def _keep_fresh(self) -> None:
        while True:
            await self._clock.sleep(_REFRESH_SECONDS if await self._try_refresh() else _RETRY_SECONDS)

    async def _try_refresh(self) -> bool:
        try:
            await self.refresh()
        except (Unavailable, WrongMasterKey) as error:
            if str(error) != self._trouble:
                log.warning("signing keys not read", reason=str(error))
            self._trouble = str(error)
            return False
        self._trouble = ""
        return True

    def _due(self, keys: Sequence[SigningKey]) -> SigningKey | None:
        """A new key where there is none yet, or where the newest one's period ends within the time of publication."""
        now = self._now()
        if keys and keys[-1].signs_from + self._period > now + PUBLISHED_AHEAD:
            return None
        return SigningKey(
            id=secrets.token_urlsafe(9),
            private_key=Ed25519PrivateKey.generate(),
            signs_from=now + PUBLISHED_AHEAD if keys else now,
        )

    def _retired(self, keys: Sequence[SigningKey]) -> list[SigningKey]:
        """Keys whose successor has been signing for longer than anything they signed can live."""
        now = self._now()
        return [key for key, successor in itertools.pairwise(keys) if successor.signs_from + self._retired_after <= now]

    def _seal(self, key: SigningKey) -> SealedKey:
        sealed = self._master_key.seal(key.private_key.private_bytes_raw(), owner=key.id)
        return SealedKey(id=key.id, sealed_private_key=sealed, signs_from=key.signs_from)

    def _unseal(self, sealed: SealedKey) -> SigningKey:
        raw = self._master_key.unseal(sealed.sealed_private_key, owner=sealed.id)
        private_key = Ed25519PrivateKey.from_private_bytes(raw)
        return SigningKey(id=sealed.id, private_key=private_key, signs_from=sealed.signs_from)

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())
