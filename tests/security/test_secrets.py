"""Canary secrets: what every process logs, measures and answers, after good and failed uses of each secret."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.layout import OPERATIONS_PORTS
from tests.e2e.api import Api, Project
from tests.suite_running import Suite

pytestmark = pytest.mark.timeout(120)

#: Of the installation, as `make run` has generated them.
_OF_THE_INSTALLATION = 8


async def _uses(api: Api, project: Project) -> Iterator[str]:
    """Uses each secret well and badly; all that was answered but the answers that show one."""
    good = {"email": project.email, "password": "Canary-of-a-password-1"}
    metric = {"metrics": [{"name": "none_total", "value": 1, "labels": {"note": project.secret_key}}]}
    answers = [
        await api.call("POST", "/api/v1/auth/signin", good),
        await api.call("POST", "/api/v1/auth/signin", {**good, "totp": "Canary-of-a-code"}),
        await api.call("POST", "/api/v1/auth/refresh", {"refreshToken": project.refresh_token + "x"}),
        await api.call("POST", "/api/v1/auth/password-reset/confirm", {"token": "mt_Canary", "password": "short"}),
        await api.call("GET", "/api/v1/auth/me", credential=project.token + "x"),
        await api.call("GET", "/api/v1/auth/me", credential=project.token),
        await api.call("POST", "/api/v1/metrics", metric, credential=project.secret_key + "x"),
        await api.call("POST", f"/api/v1/metrics?key={project.secret_key}", metric),
        await api.call("POST", "/api/v1/metrics", metric, credential=project.secret_key),
        await api.call("GET", f"/nowhere/{project.secret_key}?token={project.token}"),
        await api.call("GET", f"/sdk/v1/{project.secret_key}.js"),
        await api.call(
            "GET", "/prometheus/api/v1/query", credential=project.secret_key, params={"query": project.secret_key + "{"}
        ),
        await api.call("PATCH", f"/api/v1/projects/{project.token}", {"name": "x"}, credential=project.token),
    ]
    return (f"{answer.headers} {answer.text}" for answer in answers if answer.status >= 400)


def _installations(suite: Suite) -> dict[str, str]:
    secrets = {file.name: file.read_text().strip() for file in (suite.data / "secrets").iterdir() if file.is_file()}
    assert len(secrets) >= _OF_THE_INSTALLATION
    return secrets


async def test_no_secret_is_in_logs_metrics_or_errors(suite: Suite, api: Api, project: Project) -> None:
    errors = list(await _uses(api, project))
    secrets = {
        "access token": project.token.rpartition(".")[2],
        "refresh token": project.refresh_token,
        "secret key": project.secret_key,
        "password": "Canary-of-a-password-1",
        "code": "Canary-of-a-code",
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
        for error in errors
        for what, secret in secrets.items()
        if what != "e-mail address" and secret in error
    ]
    assert not found, "\n".join(found)


def _command_lines(suite: Suite) -> Iterator[str]:
    for process in suite.processes().values():
        yield Path(f"/proc/{process['pid']}/cmdline").read_bytes().replace(b"\0", b" ").decode()
