"""Fixtures: `api`, an `Api` on the running suite; `project`, a new tenant's first project with keys."""

from collections.abc import AsyncIterator

import pytest

from tests.e2e.api import Api, Project, connected, sign_up
from tests.suite_running import Suite


@pytest.fixture
async def api(suite: Suite) -> AsyncIterator[Api]:
    suite.wait_ready()
    async with connected(suite.base_url) as api:
        yield api


@pytest.fixture
async def project(api: Api) -> Project:
    return await sign_up(api)
