"""Where scanners for secrets report keys that they have found.

The form is that of GitHub's secret scanning partners. A report needs no signature: whoever makes it shows the key
itself, and a key that somebody else has is no secret any more.
"""

import base64
from collections.abc import Sequence
from typing import Annotated

import msgspec
from aiohttp import web

from chassis import api_keys
from chassis.errors import Invalid, UnsupportedMediaType
from contracts.pulsegate.auth.v1 import accounts_pb2 as pb
from services.gateway import errors
from services.gateway.clients.accounts import Accounts
from services.gateway.http_api.bodies import read
from services.gateway.routes import Audience, Media, Operation, Route

_MOST_REPORTED = 100
_JSON = Media(("application/json",))


class FoundKey(msgspec.Struct):
    """What a scanner found; further members are not looked at."""

    token: str
    #: The scanner's name for this kind of secret.
    type: str = ""
    #: Where it was found.
    url: str = ""


class JudgedKey(msgspec.Struct):
    """Whether a text was a live secret key."""

    #: SHA-256, in base64.
    token_hash: str
    token_type: str
    #: `true_positive` or `false_positive`.
    label: str


_REPORT: msgspec.json.Decoder[list[FoundKey]] = msgspec.json.Decoder(
    Annotated[list[FoundKey], msgspec.Meta(min_length=1, max_length=_MOST_REPORTED)]
)


class LeakedKeyRoutes:
    """`/api/v1/leaked-keys`"""

    title = "API keys"

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def routes(self) -> Sequence[Route]:
        return [
            Route(
                "POST",
                "/api/v1/leaked-keys",
                self.report,
                Audience.ANYBODY,
                Operation(
                    "Report leaked keys",
                    {200: _JSON},
                    "Takes a list of 1 to 100 objects with `token`, `type` and `url`; answers one with `token_hash`,"
                    " `token_type` and `label`. Live secret keys are revoked; publishable ones are public by nature.",
                    body=_JSON,
                ),
            )
        ]

    async def report(self, request: web.Request) -> web.Response:
        found = await _found_in(request)
        secret = [key for key in found if api_keys.kind_of(key.token) == "secret"]
        leaked = [pb.LeakedKey(api_key_sha256=api_keys.digest(key.token), place=key.url) for key in secret]
        revoked = await self._accounts.report_leaked_keys(leaked) if leaked else ()
        live = {key.token for key, was_live in zip(secret, revoked, strict=True) if was_live}
        body = msgspec.json.encode([_judged(key, live=key.token in live) for key in found])
        return web.Response(body=body, content_type="application/json")


async def _found_in(request: web.Request) -> list[FoundKey]:
    """Raises UnsupportedMediaType, MALFORMED_JSON or VALIDATION_FAILED."""
    if request.content_type != "application/json":
        raise UnsupportedMediaType("Send this as application/json.")
    try:
        return _REPORT.decode(await read(request))
    except msgspec.ValidationError as error:
        raise Invalid(f"This is no list of 1 to {_MOST_REPORTED} found keys: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.malformed_json("The body is not valid JSON: it cannot be parsed.") from error


def _judged(key: FoundKey, *, live: bool) -> JudgedKey:
    return JudgedKey(
        token_hash=base64.b64encode(api_keys.digest(key.token)).decode(),
        token_type=key.type,
        label="true_positive" if live else "false_positive",
    )
