"""A person's second factor: enrolled, confirmed, shown at each sign-in, disabled."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from chassis.clock import Clock, from_unix_ms
from chassis.errors import PulsegateError
from chassis.postgres import Connection, Database
from chassis.principals import Principal
from services.auth.domain import SessionId, User, UserId
from services.auth.errors import (
    InvalidTotp,
    TooManyCodes,
    TotpEnabled,
    TotpNotBegun,
    TotpRequired,
    WrongPassword,
)
from services.auth.one_time_codes import CLOSED_FOR, MOST_FAILURES, OneTimeCodes, SecondFactor, is_totp
from services.auth.operations.access import Access, require_person
from services.auth.operations.audit import AuditTrail
from services.auth.operations.sessions import Sessions
from services.auth.outbox import Outbox
from services.auth.passwords import PasswordHasher
from services.auth.storage.accounts import AccountStorage
from services.auth.storage.second_factors import SecondFactorStorage


@dataclass(frozen=True, kw_only=True)
class SecondFactorState:
    """What a person is told of their second factor."""

    enabled: bool
    recovery_codes_left: int


@dataclass(frozen=True, kw_only=True)
class NewSecret:
    """What an authenticator app is given."""

    #: In base32.
    secret: str
    #: The same as an otpauth address.
    uri: str


class SecondFactors:
    """`judge` is a step of signing in, and of what weakens a second factor; the others are operations."""

    def __init__(
        self,
        database: Database,
        access: Access,
        accounts: AccountStorage,
        second_factors: SecondFactorStorage,
        codes: OneTimeCodes,
        sessions: Sessions,
        outbox: Outbox,
        trail: AuditTrail,
        hasher: PasswordHasher,
        clock: Clock,
    ) -> None:
        self._database = database
        self._access = access
        self._accounts = accounts
        self._second_factors = second_factors
        self._codes = codes
        self._sessions = sessions
        self._outbox = outbox
        self._trail = trail
        self._hasher = hasher
        self._clock = clock

    async def judge(self, connection: Connection, user: User, code: str) -> PulsegateError | None:
        """What to refuse who has shown the password with; None where nothing is missing. `code` may be empty.

        The caller commits before it raises that: a wrong code is counted, a good one spent.
        """
        factor = await self._second_factors.lock(connection, user.id)
        if factor is None or not factor.confirmed:
            return None
        code = code.replace(" ", "")
        if not code:
            return TotpRequired()
        now = self._now()
        if factor.closed_until is not None and now < factor.closed_until:
            return TooManyCodes((factor.closed_until - now).total_seconds())
        if await self._is_good(connection, user.id, factor, code):
            return None
        return await self._wrong(connection, user, factor)

    async def state(self, principal: Principal) -> SecondFactorState:
        """The caller's own."""
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            factor = await self._second_factors.lock(connection, user_id)
            left = await self._second_factors.codes_left(connection, user_id)
        return SecondFactorState(enabled=factor is not None and factor.confirmed, recovery_codes_left=left)

    async def begin(self, principal: Principal, password: str) -> NewSecret:
        """A new secret, which counts for nothing until it is confirmed.

        Raises WrongPassword, SessionOver, TotpEnabled.
        """
        user_id = require_person(principal)
        known = await self._prove(user_id, password)
        secret, sealed = self._codes.new_secret(user_id)
        async with self._database.transaction(user_id=user_id) as connection:
            user = await self._own(connection, principal, known)
            if not await self._second_factors.begin(connection, user_id, sealed, self._now()):
                raise TotpEnabled
        return NewSecret(secret=secret, uri=self._codes.uri(secret, user.email))

    async def confirm(self, principal: Principal, code: str) -> Sequence[str]:
        """The recovery codes, which are shown only here. Ends every other session, none of which has shown a code.

        Raises SessionOver, TotpNotBegun, TotpEnabled, InvalidTotp.
        """
        user_id = require_person(principal)
        async with self._database.transaction(user_id=user_id) as connection:
            user = await self._accounts.get(connection, user_id)
            factor = await self._second_factors.lock(connection, user_id)
            await self._access.require_session(connection, principal)
            if user is None or factor is None:
                raise TotpNotBegun
            if factor.confirmed:
                raise TotpEnabled
            if not await self._spend(connection, user_id, factor, code.replace(" ", "")):
                raise InvalidTotp
            await self._second_factors.confirm(connection, user_id, self._now())
            codes = await self._new_codes(connection, user_id)
            await self._tell(connection, user, "A second factor was enabled: signing in takes a code from now on.")
            this_one = SessionId(principal.session_id)
            await self._sessions.end_all(connection, user_id, because=["second_factor.enabled"], but=this_one)
        return codes

    async def renew_codes(self, principal: Principal, password: str, code: str) -> Sequence[str]:
        """New recovery codes; the older ones are void.

        Raises WrongPassword, SessionOver, TotpNotBegun, and what `judge` says.
        """
        user_id = require_person(principal)
        known = await self._prove(user_id, password)
        async with self._database.transaction(user_id=user_id) as connection:
            user = await self._own(connection, principal, known)
            factor = await self._second_factors.lock(connection, user_id)
            if factor is None or not factor.confirmed:
                raise TotpNotBegun
            refusal = await self.judge(connection, user, code)
            if refusal is None:
                await self._tell(connection, user, "The recovery codes of your second factor were replaced.")
                await self._trail.of_person(connection, user_id, "recovery_codes.replaced")
                return await self._new_codes(connection, user_id)
        raise refusal

    async def disable(self, principal: Principal, password: str, code: str) -> None:
        """Nothing where there is none. Raises WrongPassword, SessionOver, and what `judge` says."""
        user_id = require_person(principal)
        known = await self._prove(user_id, password)
        async with self._database.transaction(user_id=user_id) as connection:
            user = await self._own(connection, principal, known)
            refusal = await self.judge(connection, user, code)
            if refusal is None:
                await self._remove(connection, user)
        if refusal is not None:
            raise refusal

    async def _remove(self, connection: Connection, user: User) -> None:
        factor = await self._second_factors.lock(connection, user.id)
        await self._second_factors.delete(connection, user.id)
        if factor is not None and factor.confirmed:
            await self._tell(connection, user, "The second factor was disabled: a password suffices to sign in.")
            await self._trail.of_person(connection, user.id, "second_factor.disabled")

    async def _is_good(self, connection: Connection, user_id: UserId, factor: SecondFactor, code: str) -> bool:
        if is_totp(code):
            return await self._spend(connection, user_id, factor, code)
        spent = await self._second_factors.spend_code(connection, user_id, self._codes.recovery_digest(code))
        if spent:
            await self._second_factors.note_failures(connection, user_id, 0, None)
        return spent

    async def _spend(self, connection: Connection, user_id: UserId, factor: SecondFactor, code: str) -> bool:
        step = self._codes.step_of(factor, user_id, code, self._now())
        if step is not None:
            await self._second_factors.take(connection, user_id, step)
        return step is not None

    async def _wrong(self, connection: Connection, user: User, factor: SecondFactor) -> PulsegateError:
        """Counts a wrong code; whoever shows one knows the password, so its owner is told where there are many."""
        failures = factor.failures + 1
        if failures < MOST_FAILURES:
            await self._second_factors.note_failures(connection, user.id, failures, None)
            return InvalidTotp()
        await self._second_factors.note_failures(connection, user.id, 0, self._now() + CLOSED_FOR)
        await self._tell(connection, user, "Somebody signed in with your password and several wrong codes.")
        return TooManyCodes(CLOSED_FOR.total_seconds())

    async def _prove(self, user_id: UserId, password: str) -> str:
        """The account's password at rest, which `password` is. Raises WrongPassword."""
        async with self._database.transaction(user_id=user_id) as connection:
            known = await self._accounts.password(connection, user_id)
        if not await self._hasher.matches(password, known) or known is None:
            raise WrongPassword
        return known

    async def _own(self, connection: Connection, principal: Principal, known: str) -> User:
        """Raises WrongPassword where it was replaced since `_prove`, SessionOver."""
        user_id = require_person(principal)
        user = await self._accounts.get(connection, user_id)
        if user is None or await self._accounts.lock_password(connection, user_id) != known:
            raise WrongPassword
        await self._access.require_session(connection, principal)
        return user

    async def _new_codes(self, connection: Connection, user_id: UserId) -> Sequence[str]:
        codes = self._codes.recovery_codes()
        await self._second_factors.replace_codes(connection, user_id, map(self._codes.recovery_digest, codes))
        return codes

    async def _tell(self, connection: Connection, user: User, change: str) -> None:
        await self._outbox.queue_notice(connection, user, change, self._now())

    def _now(self) -> datetime:
        return from_unix_ms(self._clock.now_ms())
