"""Sessions: their beginning, the rotation of their refresh tokens, and their end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis.clock import Clock, from_unix_ms
from chassis.ids import is_uuid, uuid7
from chassis.postgres import Connection, Database
from chassis.principals import Principal
from services.auth import metrics
from services.auth.domain import (
    Device,
    LiveSession,
    Page,
    PageRequest,
    Presented,
    RefreshToken,
    Session,
    SessionId,
    UserId,
    presented,
)
from services.auth.errors import SessionOver
from services.auth.operations.access import Access, no_such, require_person
from services.auth.operations.audit import AuditTrail, told
from services.auth.storage.feed import FeedStorage
from services.auth.storage.row_access import show_rows
from services.auth.storage.sessions import SessionStorage
from services.auth.tokens import RefreshTokens, Tokens


@dataclass(frozen=True, kw_only=True)
class IssuedTokens:
    """What a person's client keeps."""

    access_token: str
    refresh_token: str
    #: Seconds until the access token expires.
    expires_in: int


class Sessions:
    """`begin` is a step of signing up and in, `end_all` of whatever ends sessions; the others are operations."""

    def __init__(
        self,
        database: Database,
        access: Access,
        sessions: SessionStorage,
        feed: FeedStorage,
        trail: AuditTrail,
        tokens: Tokens,
        refresh_tokens: RefreshTokens,
        clock: Clock,
        *,
        refresh_token_life: timedelta,
    ) -> None:
        self._database = database
        self._access = access
        self._sessions = sessions
        self._feed = feed
        self._trail = trail
        self._tokens = tokens
        self._refresh_tokens = refresh_tokens
        self._clock = clock
        self._life = refresh_token_life

    async def begin(
        self, connection: Connection, user_id: UserId, device: Device, *, not_after: datetime | None = None
    ) -> IssuedTokens:
        """A new session of the user whose rows are shown; `not_after`: as in `Session`. Raises SigningKeysMissing."""
        now, refresh = self._now(), self._refresh_tokens.first()
        family = Session(id=SessionId(str(uuid7())), user_id=user_id, revoked_at=None, not_after=not_after)
        issued = self._issued(family, refresh)
        expires_at = family.expires_at(now, self._life)
        session = LiveSession(id=family.id, device=device, created_at=now, last_used_at=now, expires_at=expires_at)
        await self._sessions.insert(connection, user_id, session, not_after)
        await self._sessions.insert_token(connection, self._fresh(refresh, family, expires_at))
        return issued

    async def end_all(
        self, connection: Connection, user_id: UserId, *, because: Sequence[str] = (), but: SessionId | None = None
    ) -> None:
        """Ends the sessions of the user whose rows are shown, but the one that is named. The last step: it announces.

        `because` are actions that are told first: whoever ends sessions may not have told anything before.
        """
        ended = await self._sessions.revoke_all(connection, user_id, self._now(), but=but)
        for action in because:
            await self._trail.of_person(connection, user_id, action)
        if ended:
            await self._tell(connection, user_id, "session.ended", ended)
            await self._feed.announce(connection, ended)

    async def page(self, principal: Principal, page: PageRequest) -> Page[LiveSession]:
        """The caller's own that have not ended, from the oldest."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            found = await self._sessions.page(connection, user_id, page, self._now())
        return page.cut(found, lambda session: session.id)

    async def revoke_one(self, principal: Principal, session_id: SessionId) -> None:
        """One of the caller's own, which may be the one of this call. Raises SessionOver, NotFound where that one has
        ended."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            await self._access.require_session(connection, principal)
            if not is_uuid(session_id) or not await self._sessions.revoke(connection, session_id, self._now()):
                raise no_such("session")
            await self._tell(connection, user_id, "session.ended", [session_id])
            await self._feed.announce(connection, [session_id])

    async def revoke_others(self, principal: Principal) -> None:
        """All of the caller's own but the one of this call. Raises SessionOver where that has ended."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            await self._access.require_session(connection, principal)
            await self.end_all(connection, user_id, but=SessionId(principal.session_id))

    async def refresh(self, token: str, device: Device) -> IssuedTokens:
        """New tokens for a refresh token, which is spent by it; the session is used from `device` now.

        Raises SessionOver for an unknown, expired or revoked one, and for one that was spent longer ago than the grace:
        that revokes the whole family.
        """
        token_hash = self._refresh_tokens.digest(token)
        async with self._database.transaction(refresh_hash=token_hash.hex()) as connection:
            verdict, held, family = await self._judge(connection, token_hash)
            issued = None
            if held is not None and family is not None and verdict in (Presented.ROTATE, Presented.REPEAT):
                issued = self._issued(family, self._refresh_tokens.successor(token))
                if verdict is Presented.ROTATE:
                    await self._rotate(connection, held, family, issued.refresh_token, device)
            elif held is not None and verdict is Presented.REUSED:
                await self._revoke(connection, held, "session.token_reused")
        metrics.REFRESHES.labels(verdict.value).inc()
        if issued is None:  # raised out here, so that a revocation is committed
            raise SessionOver
        return issued

    async def sign_out(self, token: str) -> None:
        """Ends the token's session. An unknown token has nothing to end, which is no error (RFC 7009)."""
        token_hash = self._refresh_tokens.digest(token)
        async with self._database.transaction(refresh_hash=token_hash.hex()) as connection:
            held = await self._sessions.find_token(connection, token_hash)
            if held is not None:
                await show_rows(connection, "user_id", held.user_id)
                await self._revoke(connection, held, "session.ended")

    async def _judge(
        self, connection: Connection, token_hash: bytes
    ) -> tuple[Presented, RefreshToken | None, Session | None]:
        """Locks the token's family, then judges the token as it is now."""
        found = await self._sessions.find_token(connection, token_hash)
        if found is None:
            return Presented.REFUSE, None, None
        await show_rows(connection, "user_id", found.user_id)
        session = await self._sessions.lock(connection, found.session_id)
        held = await self._sessions.find_token(connection, token_hash)
        if session is None or held is None:  # deleted in between
            return Presented.REFUSE, None, None
        return presented(held, session, self._now()), held, session

    async def _rotate(
        self, connection: Connection, spent: RefreshToken, family: Session, successor: str, device: Device
    ) -> None:
        now = self._now()
        expires_at = family.expires_at(now, self._life)
        await self._sessions.spend_token(connection, spent.token_hash, now)
        await self._sessions.insert_token(connection, self._fresh(successor, family, expires_at))
        await self._sessions.renew(connection, family.id, device, now, expires_at)

    async def _revoke(self, connection: Connection, held: RefreshToken, action: str) -> None:
        if await self._sessions.revoke(connection, held.session_id, self._now()):
            await self._tell(connection, held.user_id, action, [held.session_id])
            await self._feed.announce(connection, [held.session_id])

    async def _tell(
        self, connection: Connection, user_id: UserId, action: str, session_ids: Sequence[SessionId]
    ) -> None:
        await self._trail.of_person(connection, user_id, action, details=told("sessions", sorted(session_ids)))

    def _fresh(self, token: str, family: Session, expires_at: datetime) -> RefreshToken:
        return RefreshToken(
            token_hash=self._refresh_tokens.digest(token),
            session_id=family.id,
            user_id=family.user_id,
            expires_at=expires_at,
            spent_at=None,
        )

    def _issued(self, family: Session, refresh_token: str) -> IssuedTokens:
        not_after = family.not_after.timestamp() if family.not_after else None
        access_token, seconds = self._tokens.access_token(family.user_id, family.id, not_after)
        return IssuedTokens(access_token=access_token, refresh_token=refresh_token, expires_in=seconds)

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())
