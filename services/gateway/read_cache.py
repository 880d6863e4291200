"""Reads that are answered again without asking the service behind: a memory in this process, Redis for all gateways.

What is kept is stamped with the revision that config's feed stood at before it was read, and counts only while the feed
has told of no later change of the project: a change, whoever made it, holds everywhere within a second, and while the
feed or Redis says nothing, nothing that is kept counts. A change through a gateway holds for whoever reads after its
answer, through any gateway: it marks the project in Redis, and while the mark lasts the service itself is asked.

Names hold tenant, project and question; whether the reader may ask is the caller's to see first, each time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chassis import logs
from chassis.breakers import Breaker, NotAsked
from chassis.clock import Clock
from chassis.principals import Principal
from chassis.shares import Holdings
from services.gateway import metrics, redis_room
from services.gateway.definition_revisions import DefinitionRevisions
from services.gateway.redis_room import Room
from services.gateway.round_trips import RoundTrips
from services.gateway.sealing import Sealing
from services.gateway.shares import HOLDERS

log = logs.get(__name__)

Load = Callable[[], Awaitable[bytes]]

_PATIENCE_SECONDS = 0.25
#: How long a project is marked after a change: longer than the feed may be late and still count as one that speaks.
_WRITTEN_MS = 3000
#: One gateway reads what is missing, for at most so long; the others look again and again whether it is there.
_READING_MS = 2000
_LOOK_AGAIN_SECONDS = 0.05
_LOOKS = 20
#: For so long the gateways that start begin their feed at the same revision.
_SINCE, _SINCE_SECONDS = "reads:since", 3600
_NEVER = -1
#: Another one for other entries: gateways of two versions then keep apart what they cannot both read; a change through
#: either holds for both.
_FORMAT = "kept reads 3"
_MOST_BYTES_OF_ONE = 2 << 20
_MOST_BYTES = 32 << 20
#: What an entry takes in memory beyond its content.
_ENTRY_BYTES = 400
#: So many bytes are put into Redis within the shortest life, what lives longer counted as often.
_MOST_BYTES_IN_REDIS = 48 << 20
#: What is left for others by each holder, see `Room`.
_LEFT_FOR_OTHERS = 4


class Life(IntEnum):
    """For how many seconds something is kept where nothing changes."""

    LIST = 300
    GENERATED = 600
    #: What its name is the hash of.
    FIXED = 3600


class _Entry(msgspec.Struct, array_like=True, frozen=True):
    #: That the feed stood at before it was read.
    revision: int
    #: Unix milliseconds.
    ends_at: int
    content: bytes


class _Memory:
    """What was used last, as far as there is room, and of each tenant as much as of the others where there is none."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: What was used the longest time ago first.
        self._entries: dict[str, tuple[str, _Entry]] = {}
        self._holdings: Holdings[str] = Holdings()

    def get(self, name: str) -> _Entry | None:
        found = self._entries.pop(name, None)
        if found is None:
            return None
        self._entries[name] = holder, entry = found
        self._holdings.used(holder, name)
        return entry

    def put(self, name: str, holder: str, entry: _Entry) -> None:
        if name in self._entries:
            self._remove(name)
        self._entries[name] = holder, entry
        self._holdings.add(holder, name, _ENTRY_BYTES + len(entry.content))
        while self._holdings.size > _MOST_BYTES:
            oldest, (_, kept) = next(iter(self._entries.items()))
            has_ended = kept.ends_at <= self._clock.now_ms()
            self._remove(oldest if has_ended else self._holdings.first_to_go())
        metrics.CACHED_BYTES.set(self._holdings.size)

    def _remove(self, name: str) -> None:
        holder, _ = self._entries.pop(name)
        self._holdings.remove(holder, name)


async def since(redis: Redis, breaker: Breaker, newest: int) -> int:
    """Where a gateway that starts begins to follow the feed, so that what others have read counts for it too: the
    revision at which another one has started within the hour, else the newest."""
    try:
        with breaker.guarded():
            async with asyncio.timeout(_PATIENCE_SECONDS):
                found: Any = await redis.set(_SINCE, newest, nx=True, get=True, ex=_SINCE_SECONDS)
    except (RedisError, OSError, NotAsked, TimeoutError):
        return newest
    return newest if found is None else min(newest, int(found))


class ReadCache:
    """See the module. `of` and `changed` never fail because of Redis."""

    def __init__(
        self, redis: Redis, breaker: Breaker, revisions: DefinitionRevisions, clock: Clock, *, secret: str
    ) -> None:
        self._redis = redis
        self._breaker = breaker
        self._revisions = revisions
        self._clock = clock
        self._sealing = Sealing(secret, _FORMAT)
        self._naming_marks = Sealing(secret, "changed projects")
        self._room = Room(redis, "reads", self._sealing, period_seconds=int(Life.LIST))
        self._memory = _Memory(clock)
        self._reading: dict[str, asyncio.Task[_Entry]] = {}
        self._marks: RoundTrips[str, bytes | None] = RoundTrips(self._marked)

    async def of(self, reader: Principal, question: bytes, life: Life, load: Load) -> bytes:
        """What `load` gives, or gave before. `reader` may have it, and reads of their own project."""
        project_id = reader.project_id
        name = self._name(reader, question)
        try:
            found = await self._find(name, project_id)
        except (RedisError, OSError, NotAsked, TimeoutError, _NotToBeKept):
            metrics.CACHED_READS.labels("passed").inc()
            return await load()
        if found is None:
            metrics.CACHED_READS.labels("missed").inc()
            found = await self._load_once(name, project_id, life, load)
            if not self._counts(found, project_id):  # somebody changed the project meanwhile
                return await load()
        return found.content

    async def changed(self, project_id: str) -> None:
        """Marks a project that a call through this gateway has changed, or may have."""
        try:
            await self._ask(self._redis.set(self._mark(project_id), b"1", px=_WRITTEN_MS))
        except (RedisError, OSError, NotAsked, TimeoutError) as error:
            log.warning("a change is told by the feed alone", reason=type(error).__name__)

    async def _find(self, name: str, project_id: str) -> _Entry | None:
        """What is kept and counts. Raises _NotToBeKept where the service itself is to be asked."""
        if self._revisions.revision is None:
            raise _NotToBeKept
        entry = self._memory.get(name)
        if entry is not None and self._counts(entry, project_id):
            mark = await self._marks.answer(self._mark(project_id))
            layer = "memory"
        else:
            mark, stored = await self._ask(self._redis.mget([self._mark(project_id), name]))
            entry, layer = self._stored(name, stored, project_id), "redis"
        if mark is not None:
            raise _NotToBeKept
        if entry is not None:
            metrics.CACHED_READS.labels(layer).inc()
        return entry

    async def _marked(self, marks: Sequence[str]) -> Sequence[bytes | None]:
        found: Sequence[bytes | None] = await self._ask(self._redis.mget(marks))
        return found

    def _stored(self, name: str, stored: bytes | None, project_id: str) -> _Entry | None:
        if stored is None:
            return None
        entry = msgspec.msgpack.decode(self._sealing.unseal(name, stored), type=_Entry)
        if not self._counts(entry, project_id):
            return None
        self._memory.put(name, _holder(), entry)
        return entry

    def _counts(self, entry: _Entry, project_id: str) -> bool:
        return entry.ends_at > self._clock.now_ms() and self._revisions.is_current(project_id, entry.revision)

    async def _load_once(self, name: str, project_id: str, life: Life, load: Load) -> _Entry:
        """Together with whoever asks the same of this gateway just now."""
        reading = self._reading.get(name)
        if reading is None:
            reading = self._reading[name] = asyncio.create_task(self._load(name, project_id, life, load))
            reading.add_done_callback(lambda done: self._finish(name, done))
        return await asyncio.shield(reading)

    def _finish(self, name: str, reading: "asyncio.Task[_Entry]") -> None:
        del self._reading[name]
        if not reading.cancelled():
            reading.exception()  # whoever waits for it is told

    async def _load(self, name: str, project_id: str, life: Life, load: Load) -> _Entry:
        """What another gateway reads just now, or what is read now and kept."""
        lock = f"{name}:reading"
        alone = await self._tried(self._redis.set(lock, b"1", nx=True, px=_READING_MS))
        if alone is None and (entry := await self._read_elsewhere(name, lock, project_id)):
            return entry
        try:
            return await self._read(name, life, load)
        finally:  # also where it failed: nobody waits then for what does not come
            await self._tried(self._redis.delete(lock))

    async def _read(self, name: str, life: Life, load: Load) -> _Entry:
        """What is read now, and kept."""
        revision = self._revisions.revision
        content = await load()
        # Without a revision it counts for those who wait for it alone.
        entry = _Entry(_NEVER if revision is None else revision, self._clock.now_ms() + life * 1000, content)
        if revision is not None and len(content) <= _MOST_BYTES_OF_ONE:
            self._memory.put(name, _holder(), entry)
            sealed = self._sealing.seal(name, msgspec.msgpack.encode(entry))
            if await self._has_room((redis_room.ENTRY_BYTES + len(sealed)) * life // Life.LIST):
                await self._tried(self._redis.set(name, sealed, px=life * 1000))
        return entry

    async def _has_room(self, size: int) -> bool:
        """Whether so much more may be put into Redis just now; what may not is kept in memory alone."""
        taking = self._room.take(HOLDERS.get(), size, most=_MOST_BYTES_IN_REDIS, times=_LEFT_FOR_OTHERS)
        return bool(await self._tried(taking))

    async def _read_elsewhere(self, name: str, lock: str, project_id: str) -> _Entry | None:
        """What the gateway that reads it puts into Redis; None where it puts nothing there, or that takes too long."""
        for _ in range(_LOOKS):
            await self._clock.sleep(_LOOK_AGAIN_SECONDS)
            found = await self._tried(self._redis.mget([name, lock]))
            if not found:
                return None
            stored, still_reading = found
            if stored is not None and (entry := self._stored(name, stored, project_id)):
                return entry
            if still_reading is None:  # what it has read is not kept
                return None
        return None

    def _name(self, reader: Principal, question: bytes) -> str:
        whose = f"{reader.tenant_id}\n{reader.project_id}\n".encode()
        return f"reads:{self._sealing.digest(whose + question).hex()}"

    def _mark(self, project_id: str) -> str:
        return f"changed:{self._naming_marks.digest(project_id.encode()).hex()}"

    async def _tried(self, asking: Awaitable[Any]) -> Any:
        """The answer; "" where Redis does not say."""
        try:
            return await self._ask(asking)
        except (RedisError, OSError, NotAsked, TimeoutError):
            return ""

    async def _ask(self, asking: Awaitable[Any]) -> Any:
        with self._breaker.guarded():
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await asking


def _holder() -> str:
    """The tenant whose it is, or its scripts where anybody reads them."""
    return next(reversed(HOLDERS.get()), "")


class _NotToBeKept(Exception):
    """The feed is silent, or the project was changed a moment ago."""
