"""How the canary shows its key."""

from pathlib import Path
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from chassis import api_keys
from chassis.settings import SettingsError, load
from services.canary.clients import Gateway
from services.canary.settings import Settings
from tests.waiting import eventually

_FIRST, _SECOND = (api_keys.with_checksum(f"sk_{digit * api_keys.RANDOM_CHARACTERS}") for digit in "12")


def _settings(tmp_path: Path, key: str) -> Settings:
    file = tmp_path / "key"
    file.write_text(key)
    told = {"OPS_PORT": "8081", "CANARY_URL": "http://gateway", "CANARY_STATE": "book", "CANARY_KEY_FILE": str(file)}
    return load(Settings, {f"PULSEGATE_{name}": value for name, value in told.items()})


async def test_a_key_that_was_rotated_is_the_one_of_the_next_call(tmp_path: Path) -> None:
    settings, shown = _settings(tmp_path, _FIRST), []

    async def take(request: web.Request) -> web.Response:
        shown.append(request.headers["Authorization"])
        return web.Response(status=202)

    application = web.Application()
    application.router.add_post("/api/v1/metrics", take)
    async with TestServer(application) as server, aiohttp.ClientSession() as session:
        gateway = Gateway(session, str(server.make_url("")), settings.following("key"))

        async def is_shown(key: str) -> bool:
            await gateway.send(UUID(int=1), 1, 1)
            return bool(shown[-1] == f"Bearer {key}")

        await eventually(lambda: is_shown(_FIRST))
        (tmp_path / "key").write_text(f"{_SECOND}\n")
        await eventually(lambda: is_shown(_SECOND))


@pytest.mark.parametrize("key", ["pk" + _FIRST[2:], _FIRST[:-1] + "0", "sk_1", "sk_1\nsk_2"])
def test_what_is_no_secret_key_is_a_fault(tmp_path: Path, key: str) -> None:
    with pytest.raises(SettingsError, match="PULSEGATE_CANARY_KEY: must be a secret key") as caught:
        _settings(tmp_path, key)
    assert key not in str(caught.value)
