"""Answers that are kept in Redis for requests that may be sent again (`http_api.idempotency`).

A request claims its name before it is carried out; who comes next finds it claimed, or answered. It begins in two
steps, because Redis may take a claim whose gateway has stopped waiting: first it is claimed, for a short time, then,
once the gateway has seen that, begun; and it is carried out once the gateway has seen that too. What is claimed and
does not begin at once never does, and whoever comes next carries it out. What has begun stays as long as an answer
would: once it is older than the longest time that a request may take, its gateway has died or could not keep the
answer, and nobody can tell whether it was carried out. It never is a second time. Redis sees neither keys nor answers:
names are keyed hashes, and what is stored is sealed.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chassis import logs
from chassis.breakers import Breaker, NotAsked
from chassis.errors import Unavailable
from services.gateway.redis_room import ENTRY_BYTES, Room
from services.gateway.sealing import Sealing
from services.gateway.shares import HOLDERS

log = logs.get(__name__)

#: How long an answer is kept.
KEPT_SECONDS = 24 * 3600
#: Answers that take more, compressed, are not kept: what is remembered is that the request was carried out.
_MOST_BYTES = 4096
#: So much is put into Redis within a day.
_MOST_BYTES_IN_ALL = 48 << 20
#: What is left for others by each holder, see `Room`: who has more there is told of no answer again but that there was
#: one, and who has still more takes no new key.
_LEFT_BY_ANSWERS, _LEFT_BY_KEYS = 8, 4
#: How much longer than a request may take a claim counts as one that is under way.
_MARGIN_SECONDS = 2.0
_PATIENCE_SECONDS = 1.0
_RETRY_AFTER_SECONDS = 1.0

#: What is claimed begins within so long, on Redis' clock, or never.
_BEGINS_WITHIN_MS = 1000

#: Begins what is still one's own, and not too old: who finds it older takes it. It may be asked again.
_BEGIN = """
local found = redis.call('GET', KEYS[1])
if found == ARGV[2] then return 1 end
if found ~= ARGV[1] or redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
#: Gives up what is claimed, or has begun.
_GIVE_UP = """
local found = redis.call('GET', KEYS[1])
if found ~= ARGV[1] and found ~= ARGV[2] then return 0 end
return redis.call('DEL', KEYS[1])
"""
#: Replaces what is still there, such as a claim by an answer, or gives it up where there is nothing instead.
_REPLACE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


class Answer(msgspec.Struct, array_like=True):
    """What a request was answered: headers and body, or an error as `chassis.errors.to_wire` writes it."""

    status: int
    headers: list[tuple[str, str]] = []
    #: None: there was no room for it, or it showed a secret; of a 5xx nothing but the status is known.
    body: bytes | None = b""
    error: bytes = b""


class _Entry(msgspec.Struct, array_like=True):
    fingerprint: bytes
    #: None: there is none yet.
    answer: Answer | None = None
    #: False: the request is claimed, and was certainly not carried out.
    begun: bool = True


@dataclass(frozen=True)
class Claim:
    """A request that is to be carried out now, by whoever holds this."""

    name: str
    fingerprint: bytes
    #: As it is stored once it has begun.
    stored: bytes
    #: Towards whose part of the room it counts (`shares.HOLDERS`).
    holders: Sequence[str]


class Taken(Enum):
    """Why a request is not to be carried out."""

    #: The same one is under way.
    UNDER_WAY = "under way"
    #: Another request had the same name.
    BY_ANOTHER = "by another"
    #: The same one began and has not been answered in time.
    UNSETTLED = "unsettled"
    #: So much is kept of this caller that there is no room for another key.
    NO_ROOM = "no room"


class KeptAnswers:
    """Claims and answers, shared by all gateways with the same secret and the same Redis."""

    def __init__(self, redis: Redis, breaker: Breaker, *, secret: str, longest_request_seconds: float) -> None:
        self._redis = redis
        self._begin_it, self._give_it_up = redis.register_script(_BEGIN), redis.register_script(_GIVE_UP)
        self._replace = redis.register_script(_REPLACE)
        self._breaker = breaker
        self._sealing = Sealing(secret, "kept answers")
        self._room = Room(redis, "answers", self._sealing, period_seconds=KEPT_SECONDS)
        self._under_way_ms = int((longest_request_seconds + _MARGIN_SECONDS) * 1000)

    async def claim(self, asked: bytes, request: bytes) -> Claim | Answer | Taken:
        """What is to be done about a request: `asked` names it, `request` tells it from others of the same name.

        Raises Unavailable where Redis does not say.
        """
        name, fingerprint = f"answers:{self._sealing.digest(asked).hex()}", self._sealing.digest(request)
        claimed = self._seal(name, _Entry(fingerprint, begun=False))
        async with self._asking():
            found, left_ms = await self._set_or_find(name, claimed)
        if found is not None and found != claimed:  # its client asks again where an answer is late
            entry = self._unseal(name, found)
            if not hmac.compare_digest(entry.fingerprint, fingerprint):
                return Taken.BY_ANOTHER
            if entry.answer is not None:
                return entry.answer
            if entry.begun:
                return Taken.UNDER_WAY if KEPT_SECONDS * 1000 - left_ms < self._under_way_ms else Taken.UNSETTLED
            if left_ms >= self._begins_until_ms or not await self._take_over(name, found, claimed):
                return Taken.UNDER_WAY
        claim = Claim(name, fingerprint, self._seal(name, _Entry(fingerprint)), HOLDERS.get())
        async with self._asking():
            if not await self._room.is_left(claim.holders, ENTRY_BYTES, most=_MOST_BYTES_IN_ALL, times=_LEFT_BY_KEYS):
                await self._give_it_up([name], [claimed, claim.stored])
                return Taken.NO_ROOM
        return await self._begin(claim, claimed)

    @property
    def _begins_until_ms(self) -> int:
        """What is claimed may begin while it has so much longer to stay."""
        return self._under_way_ms - _BEGINS_WITHIN_MS

    async def _set_or_find(self, name: str, stored: bytes) -> tuple[bytes | None, int]:
        """What is there (None: nothing was, and `stored` is now), and for how many milliseconds on Redis' clock."""
        async with self._redis.pipeline(transaction=False) as asked:
            asked.set(name, stored, nx=True, get=True, px=self._under_way_ms)
            asked.pttl(name)
            found, left_ms = await asked.execute()
        return found, left_ms

    async def _take_over(self, name: str, found: bytes, claimed: bytes) -> bool:
        """Claims what somebody else has claimed, and not begun in time; False where it is not there any more."""
        async with self._asking():
            return bool(await self._replace([name], [found, claimed, self._under_way_ms]))

    async def _begin(self, claim: Claim, claimed: bytes) -> Claim | Taken:
        """The claim, once it may be carried out."""
        try:
            async with self._asking():
                arguments: list[bytes | int] = [claimed, claim.stored, KEPT_SECONDS * 1000, self._begins_until_ms]
                return claim if await self._begin_it([claim.name], arguments) else Taken.UNDER_WAY
        except Unavailable:  # it may have begun all the same, or do so later
            with suppress(Unavailable):
                async with self._asking():
                    await self._give_it_up([claim.name], [claimed, claim.stored])
            raise

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """Raises Unavailable where Redis does not say in time what it is asked inside the block."""
        try:
            with self._breaker.guarded():
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    yield
        except (RedisError, OSError, NotAsked) as error:
            raise Unavailable(
                "Whether this request was carried out before cannot be told at the moment. Nothing was done.",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            ) from error

    async def settle(self, claim: Claim, answer: Answer | None) -> bool:
        """Keeps the answer; None gives the claim up, so that the request may be carried out anew. Never raises.

        False where Redis did not take it, or has forgotten the claim.
        """
        try:
            with self._breaker.guarded():
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    stored = await self._kept_of(claim, answer) if answer else b""
                    return bool(await self._replace([claim.name], [claim.stored, stored, KEPT_SECONDS * 1000]))
        except (RedisError, OSError, Unavailable) as error:
            log.warning("an answer could not be kept", reason=type(error).__name__)
            return False

    async def _kept_of(self, claim: Claim, answer: Answer) -> bytes:
        """The answer where there is room for it; else that there was one, or nothing of what was refused."""
        whole = self._seal(claim.name, _Entry(claim.fingerprint, answer))
        if len(whole) <= _MOST_BYTES and await self._has_room(claim, len(whole)):
            return whole
        if answer.error:
            return b""
        marker = self._seal(claim.name, _Entry(claim.fingerprint, Answer(answer.status, body=None)))
        await self._room.count(claim.holders, ENTRY_BYTES + len(marker))
        return marker

    async def _has_room(self, claim: Claim, size: int) -> bool:
        """Whether an answer of so many bytes is kept."""
        return await self._room.take(claim.holders, ENTRY_BYTES + size, most=_MOST_BYTES_IN_ALL, times=_LEFT_BY_ANSWERS)

    def _seal(self, name: str, entry: _Entry) -> bytes:
        return self._sealing.seal(name, msgspec.msgpack.encode(entry))

    def _unseal(self, name: str, sealed: bytes) -> _Entry:
        return msgspec.msgpack.decode(self._sealing.unseal(name, sealed), type=_Entry)
