"""Passwords that were forgotten or are changed, and e-mail addresses that are verified."""

from collections.abc import Sequence
from datetime import datetime

from chassis.clock import Clock, from_unix_ms
from chassis.emails import email_key
from chassis.errors import Invalid, Unauthenticated
from chassis.postgres import Connection, Database
from chassis.principals import Principal
from services.auth import metrics
from services.auth.domain import (
    EMAIL_VERIFICATION_LIFE,
    PASSWORD_RESET_LIFE,
    SessionId,
    User,
    UserId,
    email_fault,
)
from services.auth.errors import AddressOfProvider, InvalidMailedToken, OtherAddress, WrongPassword
from services.auth.mails import MailPurpose
from services.auth.operations.access import Access, require_person
from services.auth.operations.audit import AuditTrail
from services.auth.operations.reclaiming import Reclaimed, Reclaiming
from services.auth.operations.sessions import Sessions
from services.auth.outbox import Outbox
from services.auth.password_rules import judged
from services.auth.passwords import PasswordHasher
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.mails import MailedTokenStorage
from services.auth.storage.row_access import show_rows
from services.auth.storage.second_factors import SecondFactorStorage
from services.auth.tokens import MailedTokens


class Recovery:
    """See the methods. Whoever shows a token for a reset reads mail at that address, and so has verified it."""

    def __init__(
        self,
        database: Database,
        access: Access,
        accounts: AccountStorage,
        mailed_tokens: MailedTokenStorage,
        second_factors: SecondFactorStorage,
        reclaiming: Reclaiming,
        outbox: Outbox,
        sessions: Sessions,
        trail: AuditTrail,
        hasher: PasswordHasher,
        clock: Clock,
    ) -> None:
        self._database = database
        self._access = access
        self._accounts = accounts
        self._mailed_tokens = mailed_tokens
        self._second_factors = second_factors
        self._reclaiming = reclaiming
        self._outbox = outbox
        self._sessions = sessions
        self._trail = trail
        self._hasher = hasher
        self._clock = clock

    async def request_reset(self, email: str) -> None:
        """Queues a mail with a token, the same way whether or not there is such an account; whether there is, only the
        sender of mails looks. What cannot be an address gets none."""
        email = email.strip()
        if email_fault(email):
            return
        async with self._database.transaction(email=email_key(email)) as connection:
            await self._outbox.queue_token(
                connection, MailPurpose.PASSWORD_RESET, email, self._now(), PASSWORD_RESET_LIFE
            )

    async def reset(self, token: str, password: str) -> None:
        """Sets a new password and ends every session; where the address was not verified yet, it is now, a second
        factor is removed, and nobody else has a way into the tenant that signing up made.

        Raises InvalidMailedToken, Invalid, TooManyPasswords.
        """
        token_hash = MailedTokens.digest(token)
        # Looked at before the password is hashed: guesses at tokens shall not cost that.
        async with self._database.transaction(mailed_hash=token_hash.hex()) as connection:
            key = await self._mailed_tokens.find(connection, MailPurpose.PASSWORD_RESET, token_hash, self._now())
        if key is None:
            raise InvalidMailedToken
        await self._require_good(password, key, field="password")
        bcrypt = await self._hasher.hash(password)
        async with self._database.transaction(mailed_hash=token_hash.hex()) as connection:
            user = await self._owner(connection, token_hash)
            await self._accounts.lock_password(connection, user.id)
            proven, reclaimed = await self._first_proof(connection, user)
            await self._replace_password(connection, user, bcrypt, [*proven, "password.reset"])
            await self._reclaiming.tell(connection, user.id, reclaimed)
        metrics.PASSWORD_CHANGES.labels("reset").inc()

    async def change_password(self, principal: Principal, current: str, new: str) -> None:
        """Ends every other session. Raises WrongPassword, Invalid, TooManyPasswords, SessionOver."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            user, known = await self._own(connection, user_id)
        if not await self._hasher.matches(current, known) or known is None:  # whom a provider signs in has none
            raise WrongPassword
        await self._require_good(new, user.email, field="newPassword")
        bcrypt = await self._hasher.hash(new)
        async with self._database.transaction(user_id=user_id) as connection:
            if await self._accounts.lock_password(connection, user_id) != known:  # changed in between
                raise WrongPassword
            await self._access.require_session(connection, principal)
            await show_rows(connection, "email", email_key(user.email))
            this_one = SessionId(principal.session_id)
            await self._replace_password(connection, user, bcrypt, ["password.changed"], but=this_one)
        metrics.PASSWORD_CHANGES.labels("changed").inc()

    async def request_verification(self, principal: Principal) -> None:
        """Queues a mail with a token, unless the caller's address is verified.

        Raises SessionOver, AddressOfProvider.
        """
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            user = await self._accounts.get(connection, user_id)
            if user is None:
                raise Unauthenticated("This account does not exist any more.")
            await self._access.require_session(connection, principal)
            if not await self._accounts.is_known_by(connection, user_id, email_key(user.email)):
                raise AddressOfProvider
            if not await self._accounts.email_verified(connection, user_id):
                await self.begin_verification(connection, user)

    async def begin_verification(self, connection: Connection, user: User) -> None:
        """A step of signing up."""
        await show_rows(connection, "email", email_key(user.email))
        await self._outbox.queue_token(
            connection, MailPurpose.EMAIL_VERIFICATION, user.email, self._now(), EMAIL_VERIFICATION_LIFE
        )

    async def verify(self, principal: Principal, token: str) -> None:
        """By whoever is signed in to the account and reads its mail: somebody else may have signed up with the address.

        Raises InvalidMailedToken, SessionOver, OtherAddress.
        """
        user_id, token_hash = require_person(principal), MailedTokens.digest(token)
        async with self._database.transaction(user_id=user_id, mailed_hash=token_hash.hex()) as connection:
            key = await self._unspent(connection, MailPurpose.EMAIL_VERIFICATION, token_hash)
            await self._access.require_session(connection, principal)
            if not await self._accounts.is_known_by(connection, user_id, key):
                raise OtherAddress
            await self._mailed_tokens.void(connection, MailPurpose.EMAIL_VERIFICATION, key)
            await self._accounts.verify_email(connection, user_id, self._now())
            await self._trail.of_person(connection, user_id, "email.verified")

    async def _first_proof(self, connection: Connection, user: User) -> tuple[Sequence[str], Sequence[Reclaimed]]:
        """Whoever has signed up need not be who reads the mail: their second factor would lock the reader out, and what
        they have made in the tenant would let them in.

        The actions that are to be told, and what is.
        """
        if await self._accounts.email_verified(connection, user.id):
            return (), ()
        await self._accounts.verify_email(connection, user.id, self._now())
        actions = ["email.verified"]
        if await self._second_factors.delete(connection, user.id):
            actions.append("second_factor.disabled")
            change = "The second factor was removed: it was set up before this address was verified."
            await self._outbox.queue_notice(connection, user, change, self._now())
        reclaimed = await self._reclaiming.reclaim(connection, user.id, self._now())
        for one in reclaimed:
            await self._outbox.queue_notice(connection, user, one.notice, self._now())
        return actions, reclaimed

    async def _owner(self, connection: Connection, token_hash: bytes) -> User:
        """Whose token for a reset it is; their rows are shown then, and nobody else uses one until this ends."""
        key = await self._unspent(connection, MailPurpose.PASSWORD_RESET, token_hash)
        user = await self._accounts.find_by_email(connection, key)
        if user is None:
            raise InvalidMailedToken
        await show_rows(connection, "user_id", user.id)
        return user

    async def _unspent(self, connection: Connection, purpose: MailPurpose, token_hash: bytes) -> str:
        """The key of the address that a token was mailed to, whose rows are shown then. Of several uses at once, also
        of different tokens, one goes on at a time. Raises InvalidMailedToken."""
        key = await self._mailed_tokens.find(connection, purpose, token_hash, self._now())
        if key is not None:
            await show_rows(connection, "email", key)
            await self._mailed_tokens.lock(connection, key)
            key = await self._mailed_tokens.find(connection, purpose, token_hash, self._now())  # not used meanwhile
        if key is None:
            raise InvalidMailedToken
        return key

    async def _own(self, connection: Connection, user_id: UserId) -> tuple[User, str | None]:
        user = await self._accounts.get(connection, user_id)
        known = await self._accounts.lock_password(connection, user_id)
        if user is None:
            raise Unauthenticated("This account does not exist any more.")
        return user, known

    async def _require_good(self, password: str, email: str, *, field: str) -> None:
        if fault := await judged(password, email, self._hasher):
            raise Invalid.fields({field: fault})

    async def _replace_password(
        self, connection: Connection, user: User, bcrypt: str, told: Sequence[str], *, but: SessionId | None = None
    ) -> None:
        """Rows are shown by `email`; `told` are the actions. No token that was mailed before sets another one."""
        await self._accounts.update_password(connection, user.id, bcrypt)
        await self._mailed_tokens.void(connection, MailPurpose.PASSWORD_RESET, email_key(user.email))
        await self._outbox.queue_notice(connection, user, "Your password was changed.", self._now())
        await self._sessions.end_all(connection, user.id, because=told, but=but)

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())
