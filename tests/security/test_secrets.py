"""Canary secrets: what every process logs, measures and answers, after good and failed uses of each secret."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest

from deploy.local.layout import OPERATIONS_PORTS
from tests.e2e.api import PASSWORD, Answer, Api, Project
from tests.e2e.mails import mailed_token
from tests.suite_running import Suite
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)

#: Of the installation, as `make run` has generated them.
_OF_THE_INSTALLATION = 8
_WRONG_PASSWORD = "Canary-of-a-password-1"
_WRONG_CODE = "Canary-of-a-code"
_WRONG_TOKEN = "mt_Canary-of-a-token"
_REFUSED_PASSWORD = "Canary-of-a-new-password-1"


class _Uses:
    """Calls that use secrets; what was answered to those that were refused, and to the last one."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.errors: list[str] = []
        self.last: Answer

    async def call(self, status: int, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        self.last = await self._api.call(method, path, body, **options)
        assert self.last.status == status, f"{method} {path}: {self.last.status} {self.last.text}"
        if status >= 400:
            self.errors.append(f"{self.last.headers} {self.last.text}")
        return self.last


async def _of_a_person(uses: _Uses, suite: Suite, project: Project) -> dict[str, str]:
    """Uses each secret of an account well and badly; those that come up."""
    auth, good = "/api/v1/auth", {"email": project.email, "password": PASSWORD}
    session = (await uses.call(200, "POST", f"{auth}/signin", good)).json
    await uses.call(401, "POST", f"{auth}/signin", {**good, "password": _WRONG_PASSWORD})
    await uses.call(200, "POST", f"{auth}/refresh", {"refreshToken": project.refresh_token})
    await uses.call(401, "POST", f"{auth}/refresh", {"refreshToken": project.refresh_token + "x"})
    await uses.call(401, "GET", f"{auth}/me", credential=project.token + "x")
    await uses.call(200, "GET", f"{auth}/me", credential=project.token)
    mailed = {"token": await mailed_token(suite, project.email, "Verify")}
    for status in (204, 422):
        await uses.call(status, "POST", f"{auth}/email-verification/confirm", mailed, credential=project.token)
    reset = {"token": _WRONG_TOKEN, "password": _REFUSED_PASSWORD}
    await uses.call(422, "POST", f"{auth}/password-reset/confirm", reset)
    return {
        "access token of a sign-in": session["accessToken"].rpartition(".")[2],
        "refresh token of a sign-in": session["refreshToken"],
        "mailed token": mailed["token"],
        **await _of_a_second_factor(uses, project),
    }


async def _of_a_second_factor(uses: _Uses, project: Project) -> dict[str, str]:
    """Enrols, signs in with and disables one, after a wrong code each; its secrets."""
    signin, totp = "/api/v1/auth/signin", "/api/v1/auth/totp"
    own, good = {"credential": project.token}, {"email": project.email, "password": PASSWORD}
    await uses.call(401, "POST", totp, {"password": _WRONG_PASSWORD}, **own)
    secret = (await uses.call(201, "POST", totp, {"password": PASSWORD}, **own)).json["secret"]
    code = " ".join(pyotp.TOTP(secret).now())  # without spaces six digits may be in a log by chance
    await uses.call(401, "POST", f"{totp}/confirm", {"code": _WRONG_CODE}, **own)
    recovery = (await uses.call(200, "POST", f"{totp}/confirm", {"code": code}, **own)).json["recoveryCodes"]
    await uses.call(401, "POST", signin, {**good, "totp": _WRONG_CODE})
    await uses.call(200, "POST", signin, {**good, "totp": recovery[0]})
    await uses.call(401, "POST", f"{totp}/disable", {"password": PASSWORD, "totp": _WRONG_CODE}, **own)
    await uses.call(204, "POST", f"{totp}/disable", {"password": PASSWORD, "totp": recovery[1]}, **own)
    return {"secret of a device": secret, "code": code, "recovery code": recovery[0], "another one": recovery[1]}


async def _of_a_project(uses: _Uses, project: Project) -> None:
    """Uses its secret key well and badly, and credentials where they do not belong."""
    key, token = project.secret_key, project.token
    metric = {"metrics": [{"name": "none_total", "value": 1, "labels": {"note": key}}]}
    await uses.call(401, "POST", "/api/v1/metrics", metric, credential=key + "x")
    await uses.call(401, "POST", f"/api/v1/metrics?key={key}", metric)
    await uses.call(422, "POST", "/api/v1/metrics", metric, credential=key)
    await uses.call(404, "GET", f"/nowhere/{key}?token={token}")
    await uses.call(401, "GET", f"/sdk/v1/{key}.js")
    await uses.call(400, "GET", "/prometheus/api/v1/query", credential=key, params={"query": key + "{"})
    await uses.call(404, "PATCH", f"/api/v1/projects/{token}", {"name": "x"}, credential=token)


async def until_logged(suite: Suite, answer: Answer) -> None:
    """Until the gateway's log tells of the request that was answered so."""

    async def is_told() -> bool:
        return answer.headers["X-Correlation-Id"] in suite.log("gateway")

    await eventually(is_told, what="the request is logged")


def _installations(suite: Suite) -> dict[str, str]:
    secrets = {file.name: file.read_text().strip() for file in (suite.data / "secrets").iterdir() if file.is_file()}
    assert len(secrets) >= _OF_THE_INSTALLATION
    return secrets


async def test_no_secret_is_in_logs_metrics_or_errors(suite: Suite, api: Api, project: Project) -> None:
    uses = _Uses(api)
    shown = await _of_a_person(uses, suite, project)
    await _of_a_project(uses, project)
    await until_logged(suite, uses.last)
    secrets = {
        "access token": project.token.rpartition(".")[2],
        "refresh token": project.refresh_token,
        "secret key": project.secret_key,
        "password": PASSWORD,
        "wrong password": _WRONG_PASSWORD,
        "refused password": _REFUSED_PASSWORD,
        "wrong code": _WRONG_CODE,
        "wrong token": _WRONG_TOKEN,
        **shown,
        "e-mail address": project.email,
        **_installations(suite),
    }
    places = {file.name: file.read_text(errors="replace") for file in (suite.data / "logs").iterdir()}
    for name in OPERATIONS_PORTS:
        measured = await Api(api._session, f"http://127.0.0.1:{suite.ports.operations(name)}").call("GET", "/metrics")
        assert measured.status == 200
        places[f"metrics of {name}"] = measured.text
    places["what ps shows"] = "\n".join(_command_lines(suite))
    found = [
        f"{what} in {where}" for what, secret in secrets.items() for where, text in places.items() if secret in text
    ]
    # An error may repeat an address or an expression to whoever sent it, and nothing that opens a door.
    found += [
        f"{what} in {error}"
        for error in uses.errors
        for what, secret in secrets.items()
        if what != "e-mail address" and secret in error
    ]
    assert not found, "\n".join(found)


def _command_lines(suite: Suite) -> Iterator[str]:
    for process in suite.processes().values():
        yield Path(f"/proc/{process['pid']}/cmdline").read_bytes().replace(b"\0", b" ").decode()
