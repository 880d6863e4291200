"""Second factors: enrolled with the password, shown at sign-in once each, replaced by recovery codes, disabled."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import psycopg
import pyotp
import pytest
import pytest_asyncio

from chassis.errors import Conflict, Limited, PulsegateError, Unauthenticated
from contracts.pulsegate.auth.v1 import accounts_pb2
from contracts.pulsegate.auth.v1 import own_account_pb2 as pb
from services.auth.settings import Settings
from tests.integration.auth.client import PASSWORD, AuthClient, Person, running_auth
from tests.integration.auth.clocks import MovableClock
from tests.integration.auth.locks import until_somebody_waits_for_a_lock
from tests.suite_database import Database

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEP = timedelta(seconds=30)


@pytest_asyncio.fixture(loop_scope="module")
async def auth(settings: Settings, clock: MovableClock) -> AsyncIterator[AuthClient]:
    """Time stands still, so that what a device shows is not of the step before when it is judged."""
    async with running_auth(settings, clock) as client:
        clock.stop()
        yield client


class Device:
    """An authenticator app with the secret of one person."""

    def __init__(self, secret: str, clock: MovableClock) -> None:
        self.secret = secret
        self._totp, self._clock = pyotp.TOTP(secret), clock

    def code(self, steps: int = 0) -> str:
        """What it shows, or shows so many steps later."""
        return self._totp.generate_otp(self._clock.now_ms() // 30_000 + steps)

    def wrong_code(self) -> str:
        near = {self.code(steps) for steps in range(-3, 4)}
        return next(code for code in map("{:06}".format, range(10)) if code not in near)


async def own(auth: AuthClient, person: Person, request: object) -> object:
    """A call that is named as its request is."""
    method = type(request).__name__.removesuffix("Request")
    return await auth.own(method, request, await auth.principal(person))


async def begin(auth: AuthClient, person: Person, clock: MovableClock) -> Device:
    answer = await own(auth, person, pb.BeginTotpRequest(password=PASSWORD))
    assert isinstance(answer, pb.BeginTotpResponse)
    return Device(answer.secret, clock)


async def confirm(auth: AuthClient, person: Person, code: str) -> Sequence[str]:
    answer = await own(auth, person, pb.ConfirmTotpRequest(code=code))
    assert isinstance(answer, pb.ConfirmTotpResponse)
    return answer.recovery_codes


async def enrolled(auth: AuthClient, clock: MovableClock) -> tuple[Person, Device, Sequence[str]]:
    """Somebody who may show the code of the next step."""
    ada = await auth.sign_up()
    device = await begin(auth, ada, clock)
    codes = await confirm(auth, ada, device.code())
    await clock.advance(STEP)
    return ada, device, codes


async def sign_in(auth: AuthClient, person: Person, code: str = "", password: str = PASSWORD) -> str:
    request = accounts_pb2.SignInRequest(email=person.email, password=password, totp=code)
    return str((await auth.account("SignIn", request)).session.access_token)


async def refused(auth: AuthClient, person: Person, code: str = "", password: str = PASSWORD) -> str:
    """The code of the error."""
    with pytest.raises(PulsegateError) as error:
        await sign_in(auth, person, code, password)
    return error.value.code


async def state(auth: AuthClient, person: Person) -> tuple[bool, int]:
    answer = await own(auth, person, pb.GetTotpRequest())
    assert isinstance(answer, pb.GetTotpResponse)
    return answer.enabled, answer.recovery_codes_left


def notices(database: Database) -> list[str]:
    with psycopg.connect(database.superuser_dsn) as connection:
        rows = connection.execute("SELECT details ->> 'change' FROM auth.mails WHERE purpose = 'notice' ORDER BY id")
        return [change for (change,) in rows.fetchall()]


async def test_signing_in_takes_a_code_once_the_second_factor_is_confirmed(
    auth: AuthClient, clock: MovableClock, database: Database
) -> None:
    ada = await auth.sign_up()
    other = await sign_in(auth, ada)
    device = await begin(auth, ada, clock)
    assert await sign_in(auth, ada)
    with pytest.raises(Unauthenticated) as wrong:
        await confirm(auth, ada, device.wrong_code())
    assert (wrong.value.code, await state(auth, ada)) == ("INVALID_TOTP", (False, 0))

    codes = await confirm(auth, ada, device.code())

    assert len(set(codes)) == 10
    assert await state(auth, ada) == (True, 10)
    with pytest.raises(Unauthenticated):
        await auth.authenticate(access_token=other)
    assert await refused(auth, ada) == "TOTP_REQUIRED"
    assert await refused(auth, ada, device.wrong_code()) == "INVALID_TOTP"
    assert await refused(auth, ada, device.code(1), password="not the right one") == "INVALID_CREDENTIALS"
    await clock.advance(STEP)
    shown = device.code()
    assert await sign_in(auth, ada, f"{shown[:3]} {shown[3:]}")
    assert notices(database) == ["A second factor was enabled: signing in takes a code from now on."]


async def test_a_code_is_good_once_whoever_shows_it(auth: AuthClient, clock: MovableClock) -> None:
    ada = await auth.sign_up()
    device = await begin(auth, ada, clock)
    await confirm(auth, ada, device.code())
    assert await refused(auth, ada, device.code()) == "INVALID_TOTP"
    await clock.advance(2 * STEP)
    before, shown = device.code(-1), device.code()

    outcomes = await asyncio.gather(*(sign_in(auth, ada, shown) for _ in range(3)), return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Unauthenticated"] * 2 + ["str"]
    assert await refused(auth, ada, before) == "INVALID_TOTP"


async def test_a_code_may_be_one_step_early_or_late(auth: AuthClient, clock: MovableClock) -> None:
    ada, device, _ = await enrolled(auth, clock)
    await clock.advance(3 * STEP)

    assert await refused(auth, ada, device.code(-2)) == "INVALID_TOTP"
    assert await refused(auth, ada, device.code(2)) == "INVALID_TOTP"
    assert await sign_in(auth, ada, device.code(-1))
    assert await sign_in(auth, ada, device.code(1))


async def test_a_recovery_code_stands_in_for_the_device_once(auth: AuthClient, clock: MovableClock) -> None:
    ada, _, codes = await enrolled(auth, clock)
    eve, _, _ = await enrolled(auth, clock)
    written = codes[0].replace("-", " ").upper()

    assert await refused(auth, eve, written) == "INVALID_TOTP"
    assert await sign_in(auth, ada, written)
    assert await refused(auth, ada, codes[0]) == "INVALID_TOTP"
    assert await state(auth, ada) == (True, 9)


async def test_neither_recovery_codes_nor_the_secret_stand_in_the_database(
    auth: AuthClient, clock: MovableClock, database: Database
) -> None:
    ada, device, codes = await enrolled(auth, clock)

    with psycopg.connect(database.superuser_dsn) as connection:
        rows = connection.execute("SELECT f::text, c::text FROM auth.second_factors f, auth.recovery_codes c")
        at_rest = str(rows.fetchall())

    for text in (device.secret, *codes, *(code.replace("-", "") for code in codes)):
        assert text not in at_rest
        assert text.encode().hex() not in at_rest
    assert ada.user_id in at_rest


async def test_new_recovery_codes_make_the_older_ones_void(auth: AuthClient, clock: MovableClock) -> None:
    ada, device, older = await enrolled(auth, clock)

    answer = await own(auth, ada, pb.RenewRecoveryCodesRequest(password=PASSWORD, totp=device.code()))

    assert isinstance(answer, pb.RenewRecoveryCodesResponse)
    assert await refused(auth, ada, older[0]) == "INVALID_TOTP"
    assert await sign_in(auth, ada, answer.recovery_codes[0])


async def test_wrong_codes_close_the_second_factor_for_a_while_and_its_owner_is_told(
    auth: AuthClient, clock: MovableClock, database: Database
) -> None:
    ada, device, codes = await enrolled(auth, clock)
    assert [await refused(auth, ada, device.wrong_code()) for _ in range(4)] == ["INVALID_TOTP"] * 4

    with pytest.raises(Limited) as fifth:
        await sign_in(auth, ada, "not a recovery code")

    assert fifth.value.retry_after_seconds == 15 * 60
    assert await refused(auth, ada, device.code()) == "RATE_LIMIT_EXCEEDED"
    assert await refused(auth, ada, codes[0]) == "RATE_LIMIT_EXCEEDED"
    assert notices(database)[-1] == "Somebody signed in with your password and several wrong codes."
    await clock.advance(timedelta(minutes=15))
    assert await refused(auth, ada, device.wrong_code()) == "INVALID_TOTP"
    assert await sign_in(auth, ada, device.code())


async def test_what_changes_a_second_factor_takes_the_password(
    auth: AuthClient, clock: MovableClock, database: Database
) -> None:
    ada, device, _ = await enrolled(auth, clock)

    for request in (pb.BeginTotpRequest, pb.RenewRecoveryCodesRequest, pb.DisableTotpRequest):
        with pytest.raises(Unauthenticated) as wrong:
            await own(auth, ada, request(password="not the right one"))
        assert wrong.value.code == "INVALID_CREDENTIALS"
    await own(auth, ada, pb.DisableTotpRequest(password=PASSWORD, totp=device.code()))
    await own(auth, ada, pb.DisableTotpRequest(password=PASSWORD))

    assert await state(auth, ada) == (False, 0)
    assert await sign_in(auth, ada)
    assert notices(database)[1:] == ["The second factor was disabled: a password suffices to sign in."]


@pytest.mark.parametrize("request_type", [pb.RenewRecoveryCodesRequest, pb.DisableTotpRequest])
async def test_what_weakens_a_second_factor_takes_a_code_of_it_too(
    auth: AuthClient, clock: MovableClock, request_type: type[pb.RenewRecoveryCodesRequest | pb.DisableTotpRequest]
) -> None:
    """Whoever has the password and a session of somebody else has not their device."""
    ada, device, codes = await enrolled(auth, clock)

    async def refused_with(code: str) -> str:
        with pytest.raises(PulsegateError) as error:
            await own(auth, ada, request_type(password=PASSWORD, totp=code))
        return error.value.code

    assert await refused_with("") == "TOTP_REQUIRED"
    assert [await refused_with(device.wrong_code()) for _ in range(5)] == ["INVALID_TOTP"] * 4 + ["RATE_LIMIT_EXCEEDED"]
    assert await refused_with(codes[0]) == "RATE_LIMIT_EXCEEDED"
    assert await state(auth, ada) == (True, 10)
    await clock.advance(timedelta(minutes=15))
    ada = replace(ada, access_token=await sign_in(auth, ada, codes[1]))
    await own(auth, ada, request_type(password=PASSWORD, totp=codes[0]))
    assert await state(auth, ada) == ((True, 10) if request_type is pb.RenewRecoveryCodesRequest else (False, 0))


async def test_a_second_factor_is_confirmed_once_and_replaced_only_after_it_was_disabled(
    auth: AuthClient, clock: MovableClock
) -> None:
    ada, eve = await auth.sign_up(), await auth.sign_up()
    older = await begin(auth, ada, clock)
    device = await begin(auth, ada, clock)
    with pytest.raises(Unauthenticated):
        await confirm(auth, ada, older.code())
    await confirm(auth, ada, device.code())

    for person, request in (
        (ada, pb.BeginTotpRequest(password=PASSWORD)),
        (ada, pb.ConfirmTotpRequest(code=device.code(1))),
        (eve, pb.ConfirmTotpRequest(code=device.code(1))),
        (eve, pb.RenewRecoveryCodesRequest(password=PASSWORD)),
    ):
        with pytest.raises(Conflict):
            await own(auth, person, request)


async def test_a_password_that_is_replaced_while_it_is_compared_changes_no_second_factor(
    auth: AuthClient, clock: MovableClock, database: Database
) -> None:
    ada, device, _ = await enrolled(auth, clock)
    request = pb.DisableTotpRequest(password=PASSWORD, totp=device.code())
    async with await psycopg.AsyncConnection.connect(database.superuser_dsn) as connection:
        await connection.execute("UPDATE auth.passwords SET bcrypt = 'another'")
        attempt = asyncio.create_task(own(auth, ada, request))
        await until_somebody_waits_for_a_lock(database)

    with pytest.raises(Unauthenticated) as refused:
        await attempt
    assert refused.value.code == "INVALID_CREDENTIALS"
    assert await state(auth, ada) == (True, 10)


async def test_the_address_for_a_qr_code_names_the_account_and_the_secret(auth: AuthClient) -> None:
    ada = await auth.sign_up("ada+totp@example.com")

    answer = await own(auth, ada, pb.BeginTotpRequest(password=PASSWORD))

    assert isinstance(answer, pb.BeginTotpResponse)
    uri = urlsplit(answer.uri)
    assert (uri.scheme, uri.netloc, uri.path) == ("otpauth", "totp", "/Pulsegate:ada%2Btotp%40example.com")
    assert parse_qs(uri.query) == {"secret": [answer.secret], "issuer": ["Pulsegate"]}
