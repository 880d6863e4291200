"""Who a credential is: auth's verdicts, in a cache that auth's feed keeps true.

A cached verdict is used only while the feed has had a heartbeat within 750 ms; what the feed names is dropped, so that
a revoked key, role or session stops working within a second. Without a heartbeat auth is asked anew at each use. Where
auth cannot be reached at all, a known key's *writes* go on for a grace period; everything else fails closed.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from chassis import api_keys, logs
from chassis.clock import Clock
from chassis.errors import DeadlineExceeded, Forbidden, PulsegateError, Unauthenticated, Unavailable
from chassis.shares import Holdings
from chassis.tasks import in_background
from services.gateway import metrics
from services.gateway.domain import Credential, Verdict

log = logs.get(__name__)

#: Older than this, the last heartbeat says nothing.
HEARTBEAT_SECONDS = 0.75
#: A feed that is silent for so long is opened anew.
_SILENCE_SECONDS = 3.0
#: A look-up under way is joined only while it is younger than this: it may have read before what revoked the key.
_JOINED_SECONDS = 0.25
_REFUSED_SECONDS = 1.0
#: How long a look-up may take: longer where nothing else can be done.
_LOOKUP_SECONDS = 5.0
_LOOKUP_WITH_GRACE_SECONDS = 0.5
_AWAY_SECONDS = 0.25
#: A verdict that soon ends is looked up again in the background, while it is used. Longer than the grace period,
#: so that a key in use keeps a valid principal through it.
_REFRESH_SECONDS = 60.0
#: A verdict is used for so long before that, or for half of its life where that is short.
_FRESH_SECONDS = 15.0
_LEAST_LIFETIME_SECONDS = 2.0
#: Some 50 000 verdicts, or 3 000 on keys with as many origins as they may have.
_MOST_BYTES = 128 << 20
_MOST_GOOD = 50_000
_MOST_REFUSALS = 10_000
_RETRY_AFTER_SECONDS = 1.0

#: Of principals; whoever else is known by a credential of theirs is no key.
_KINDS_OF_KEYS = frozenset({"publishable", "secret"})

_cached = metrics.VERDICTS.labels("cached")

#: A credential's digest, and the project or the tenant that the call is about ("" for a key: it has only one).
Question = tuple[bytes, str, str]


@dataclass(frozen=True, kw_only=True)
class FeedEntry:
    """A message of auth's feed; a heartbeat names nothing."""

    revision: int
    changed_ids: tuple[str, ...] = ()
    #: Everything known before is void.
    reset: bool = False


class Authority(Protocol):
    """Who knows: auth."""

    async def authenticate(
        self, credential: Credential, project_id: str, tenant_id: str, timeout_seconds: float
    ) -> Verdict:
        """Raises Unauthenticated, NotFound (another tenant's project), Forbidden (suspended) or Unavailable."""
        ...

    def watch(self, after_revision: int) -> AsyncIterator[FeedEntry]:
        """The feed after a revision. Raises Unavailable where it breaks."""
        ...


@dataclass(frozen=True)
class _Entry:
    verdict: Verdict
    #: Unix seconds from which a use looks it up again.
    refresh_at: float


@dataclass(frozen=True)
class _Lookup:
    began: float
    task: "asyncio.Task[Verdict]"


def _question(credential: Credential, project_id: str, tenant_id: str) -> Question:
    about = (project_id, tenant_id) if credential.kind == "user" else ("", "")
    return api_keys.digest(credential.text), *about


class Verdicts:
    """Answers for credentials. `watching()` must be open meanwhile."""

    def __init__(self, authority: Authority, clock: Clock, *, grace_seconds: float) -> None:
        self._authority = authority
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._revision = 0
        self._heartbeat_at = float("-inf")
        #: After a look-up that failed for a key in grace, the next ones do not wait for auth until then.
        self._away_until = float("-inf")
        self._refresh_seconds = max(_REFRESH_SECONDS, grace_seconds + 15)
        #: The oldest first.
        self._entries: dict[Question, _Entry] = {}
        #: The same ones, by holder: no tenant's take the room of others'.
        self._holdings: Holdings[Question] = Holdings()
        self._questions_by_id: dict[str, set[Question]] = {}
        #: Digests of credentials that were good when auth was last asked; the longest ago first.
        self._once_good: dict[bytes, None] = {}
        self._refusals: dict[Question, tuple[float, Unauthenticated | Forbidden]] = {}
        self._lookups: dict[Question, _Lookup] = {}
        self._tasks: set[asyncio.Task[Verdict]] = set()

    async def probe(self) -> None:
        """A health check: auth's feed has begun once. Without it a gateway could not go on while auth is away."""
        if self._heartbeat_at == float("-inf"):
            raise Unavailable("auth's feed of credentials has not begun yet")

    async def of(
        self, credential: Credential, project_id: str = "", tenant_id: str = "", *, writes: bool = False
    ) -> Verdict:
        """The verdict on a credential, for a person's call about a project or a tenant (or about their own account).

        `writes` says that the call adds data, which a known key may go on doing for a while without auth.
        Raises Unauthenticated, NotFound, Forbidden or Unavailable.
        """
        question = _question(credential, project_id, tenant_id)
        if credential.kind == "user" and tenant_id:
            own = await self.of(credential)
            # Nothing is asked nor kept of a tenant that is not the person's: anybody can name any number of these.
            if tenant_id not in own.tenant_ids:
                return own
        if self._feed_is_fresh and (entry := self._known(question)):
            if self._now() > entry.refresh_at and question not in self._lookups:
                self._start(question, credential)
            _cached.inc()
            return entry.verdict
        self._raise_if_refused(question)
        if writes and credential.kind != "user" and self._known(question):
            return await self._ask_with_grace(question, credential)
        return await self._ask(question, credential, _LOOKUP_SECONDS)

    def knows(self, credential: Credential) -> bool:
        """Whether auth, when it was last asked, called this credential good; `of` may have to ask anew."""
        return api_keys.digest(credential.text) in self._once_good

    def has(self, credential: Credential, project_id: str) -> bool:
        """Whether a verdict about this project is kept, also where `of` must ask anew whether it still holds."""
        return self._known(_question(credential, project_id, "")) is not None

    def of_known_key(self, text: str) -> Verdict | None:
        """The verdict on a key, where it is known and true at this moment; else None: ask `of`."""
        entry = self._entries.get((api_keys.digest(text), "", ""))
        if entry is None or entry.verdict.principal.kind not in _KINDS_OF_KEYS:
            return None
        if not self._feed_is_fresh or self._now() > entry.refresh_at:
            return None
        _cached.inc()
        return entry.verdict

    async def _ask_with_grace(self, question: Question, credential: Credential) -> Verdict:
        """Asks auth; where it is away, what was known of a key holds until the grace period is over."""
        try:
            if self._clock.monotonic() < self._away_until and self._in_grace:
                raise Unavailable("auth was away a moment ago.")
            return await self._ask(question, credential, _LOOKUP_WITH_GRACE_SECONDS)
        except Unavailable:
            self._away_until = self._clock.monotonic() + _AWAY_SECONDS
            entry = self._known(question)
            if entry is None or not self._in_grace:
                raise
            metrics.VERDICTS.labels("grace").inc()
            return entry.verdict

    @property
    def _feed_is_fresh(self) -> bool:
        return self._clock.monotonic() - self._heartbeat_at <= HEARTBEAT_SECONDS

    @property
    def _in_grace(self) -> bool:
        return self._clock.monotonic() - self._heartbeat_at <= self._grace_seconds

    def _known(self, question: Question) -> _Entry | None:
        entry = self._entries.get(question)
        if entry is None:
            return None
        if self._has_ended(entry):
            self._forget(question)
            return None
        return entry

    def _has_ended(self, entry: _Entry) -> bool:
        return entry.verdict.principal.expires_at - self._now() < _LEAST_LIFETIME_SECONDS

    def _now(self) -> float:
        return self._clock.now_ms() / 1000

    def _raise_if_refused(self, question: Question) -> None:
        until, refusal = self._refusals.get(question, (0.0, None))
        if refusal is not None and self._clock.monotonic() < until:
            metrics.VERDICTS.labels("refused").inc()
            raise type(refusal)(refusal.message, code=refusal.code)

    async def _ask(self, question: Question, credential: Credential, timeout_seconds: float) -> Verdict:
        """Asks auth, together with whoever asks the same just now."""
        lookup = self._lookups.get(question)
        if lookup is None or self._clock.monotonic() - lookup.began > _JOINED_SECONDS:
            lookup = self._start(question, credential)
        try:
            async with asyncio.timeout(timeout_seconds):
                verdict = await asyncio.shield(lookup.task)
        except (Unavailable, DeadlineExceeded, TimeoutError) as error:
            raise Unavailable(
                "Credentials cannot be checked at the moment.",
                details=error.details if isinstance(error, PulsegateError) else None,
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            ) from error
        metrics.VERDICTS.labels("asked").inc()
        return verdict

    def _start(self, question: Question, credential: Credential) -> _Lookup:
        task = asyncio.create_task(self._look_up(question, credential))
        lookup = _Lookup(self._clock.monotonic(), task)
        self._lookups[question] = lookup
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._finish(question, done))
        return lookup

    def _finish(self, question: Question, task: "asyncio.Task[Verdict]") -> None:
        self._tasks.discard(task)
        if (lookup := self._lookups.get(question)) and lookup.task is task:
            del self._lookups[question]
        if not task.cancelled():
            task.exception()  # whoever asked has been told; a refresh in the background asks again

    async def _look_up(self, question: Question, credential: Credential) -> Verdict:
        digest, project_id, tenant_id = question
        try:
            verdict = await self._authority.authenticate(credential, project_id, tenant_id, _LOOKUP_SECONDS)
        except (Unauthenticated, Forbidden) as refusal:
            self._forget(question)
            self._once_good.pop(digest, None)
            self._remember_refusal(question, refusal)
            raise
        except PulsegateError as error:
            if error.kind == "not_found":
                self._forget(question)
            raise
        self._remember_good(digest)
        if verdict.revision >= self._revision:
            self._remember(question, verdict)
        return verdict

    def _remember_good(self, digest: bytes) -> None:
        self._once_good.pop(digest, None)
        self._once_good[digest] = None
        if len(self._once_good) > _MOST_GOOD:
            del self._once_good[next(iter(self._once_good))]

    def _remember(self, question: Question, verdict: Verdict) -> None:
        self._forget(question)
        expires_at = verdict.principal.expires_at
        left = expires_at - self._now()
        early = max(_LEAST_LIFETIME_SECONDS, min(self._refresh_seconds, max(left - _FRESH_SECONDS, left / 2)))
        self._entries[question] = _Entry(verdict, expires_at - early)
        self._holdings.add(verdict.holder, question, verdict.size_bytes)
        for changeable_id in verdict.ids:
            self._questions_by_id.setdefault(changeable_id, set()).add(question)
        while self._holdings.size > _MOST_BYTES:
            oldest = next(iter(self._entries))
            self._forget(oldest if self._has_ended(self._entries[oldest]) else self._holdings.first_to_go())
        metrics.VERDICTS_CACHED.set(len(self._entries))

    def _forget(self, question: Question) -> None:
        entry = self._entries.pop(question, None)
        if entry is None:
            return
        self._holdings.remove(entry.verdict.holder, question)
        for changeable_id in entry.verdict.ids:
            questions = self._questions_by_id[changeable_id]
            questions.discard(question)
            if not questions:
                del self._questions_by_id[changeable_id]
        metrics.VERDICTS_CACHED.set(len(self._entries))

    def _remember_refusal(self, question: Question, refusal: Unauthenticated | Forbidden) -> None:
        self._refusals.pop(question, None)
        self._refusals[question] = (self._clock.monotonic() + _REFUSED_SECONDS, refusal)
        if len(self._refusals) > _MOST_REFUSALS:
            del self._refusals[next(iter(self._refusals))]

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Follows auth's feed while open."""
        async with in_background(self._watch()):
            try:
                yield
            finally:
                for task in self._tasks:
                    task.cancel()

    async def _watch(self) -> None:
        while True:
            try:
                await self._follow()
            except (Unavailable, DeadlineExceeded, TimeoutError) as error:
                log.info("the feed of credentials broke off", reason=str(error) or "silence")
            except PulsegateError as error:
                log.warning("the feed of credentials is refused", code=error.code, reason=error.message)
            metrics.FEED_FRESH.set(0)
            await self._clock.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - spreads reconnections

    async def _follow(self) -> None:
        feed = aiter(self._authority.watch(self._revision))
        while True:
            async with asyncio.timeout(_SILENCE_SECONDS):
                entry = await anext(feed, None)
            if entry is None:
                return
            self.apply(entry)

    def apply(self, entry: FeedEntry) -> None:
        """Makes the cache true up to an entry of the feed. A heartbeat of what was never heard of voids all of it."""
        if entry.reset or (not entry.changed_ids and entry.revision > self._revision):
            self._entries.clear()
            self._questions_by_id.clear()
            self._holdings = Holdings()
            self._revision = entry.revision
        for changed_id in entry.changed_ids:
            self._void(self._questions_by_id.get(changed_id, ()))
        self._revision = max(self._revision, entry.revision)
        self._heartbeat_at = self._clock.monotonic()
        metrics.FEED_REVISION.set(self._revision)
        metrics.FEED_FRESH.set(1)

    def _void(self, questions: Iterable[Question]) -> None:
        for question in tuple(questions):
            self._forget(question)
