"""A person's second factor: codes of an authenticator app at each sign-in."""

from collections.abc import Sequence

from aiohttp import web

from services.gateway.clients.own_account import OwnAccount
from services.gateway.http_api.bodies import Taking, answer, no_content, shown_once
from services.gateway.http_api.shapes import Asked, Told
from services.gateway.limits import Limits
from services.gateway.routes import Audience, Operation, Route


class OwnPassword(Asked):
    password: str


class BothFactors(Asked):
    password: str
    #: A code of the second factor or a recovery code, where there is one.
    totp: str = ""


class Code(Asked):
    code: str


class SecondFactor(Told):
    enabled: bool
    recovery_codes_left: int


class NewSecret(Told):
    #: In base32.
    secret: str
    #: The same as an otpauth address, for a QR code.
    uri: str


class RecoveryCodes(Told):
    #: Each is good for one sign-in without the device. Shown only here.
    recovery_codes: list[str]


class SecondFactorRoutes:
    """`/api/v1/auth/totp`"""

    title = "Second factor"

    def __init__(self, own_account: OwnAccount, limits: Limits) -> None:
        self._own_account = own_account
        self._limits = limits

    def routes(self) -> Sequence[Route]:
        totp = "/api/v1/auth/totp"
        return [
            Route("GET", totp, self.state, Audience.READ, Operation("My second factor", {200: SecondFactor})),
            Route(
                "POST",
                totp,
                Taking(OwnPassword, self.begin),
                Audience.PROOF,
                Operation("Begin a second factor", {201: NewSecret}, "It counts once it is confirmed.", errors=(409,)),
            ),
            Route(
                "POST",
                totp + "/confirm",
                Taking(Code, self.confirm),
                Audience.PROOF,
                Operation("Confirm a second factor", {200: RecoveryCodes}, "Ends every other session.", errors=(409,)),
            ),
            Route(
                "POST",
                totp + "/recovery-codes",
                Taking(BothFactors, self.renew_codes),
                Audience.PROOF,
                Operation("Renew recovery codes", {200: RecoveryCodes}, "The older ones are void.", errors=(409,)),
            ),
            Route(
                "POST",
                totp + "/disable",
                Taking(BothFactors, self.disable),
                Audience.PROOF,
                Operation("Disable my second factor", {204: None}),
            ),
        ]

    async def state(self, _request: web.Request) -> web.Response:
        found = await self._own_account.totp()
        return answer(SecondFactor(found.enabled, found.recovery_codes_left))

    async def begin(self, request: web.Request, body: OwnPassword) -> web.Response:
        await self._limits.charge_caller(request)
        made = await self._own_account.begin_totp(body.password)
        return shown_once(answer(NewSecret(made.secret, made.uri), status=201))

    async def confirm(self, request: web.Request, body: Code) -> web.Response:
        await self._limits.charge_caller(request)
        return shown_once(answer(RecoveryCodes(list(await self._own_account.confirm_totp(body.code)))))

    async def renew_codes(self, request: web.Request, body: BothFactors) -> web.Response:
        await self._limits.charge_caller(request)
        codes = await self._own_account.renew_recovery_codes(body.password, body.totp)
        return shown_once(answer(RecoveryCodes(list(codes))))

    async def disable(self, request: web.Request, body: BothFactors) -> web.Response:
        await self._limits.charge_caller(request)
        await self._own_account.disable_totp(body.password, body.totp)
        return no_content()
