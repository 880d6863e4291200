"""Fixtures: `api`, an `Api` on the running suite; `project`, a new tenant's first project with keys."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.api import Api, Project, connected, sign_up
from tests.suite_running import Suite
from tests.waiting import eventually


@pytest.fixture(scope="module")
def meant_well(suite: Suite) -> Iterator[None]:
    """What these tests send is meant well: a request rule that is against any of it is wrong."""
    before = len(suite.log("gateway").splitlines())
    yield
    lines = suite.log("gateway").splitlines()[before:]
    assert not [line for line in lines if "request of an attack's shape" in line]


@pytest.fixture
async def api(suite: Suite, meant_well: None) -> AsyncIterator[Api]:
    suite.wait_ready()
    async with connected(suite.base_url) as api:
        # After a test that took something away the gateway may still be on its way back to it.
        await eventually(lambda: _is_whole(api), within_seconds=60, what="the gateway reaches everything")
        yield api


async def _is_whole(api: Api) -> bool:
    return bool((await api.call("GET", "/health/ready")).json["status"] == "ready")


@pytest.fixture
async def project(api: Api) -> Project:
    return await sign_up(api)
