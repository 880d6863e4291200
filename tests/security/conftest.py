"""Fixtures: `api` and `project` as end-to-end tests have them, and, for a whole module, everybody around a tenant."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.api import Api, Project, connected, sign_up
from tests.e2e.conftest import api, project
from tests.security.cast import Cast, assembled
from tests.security.made_requests import Operation, operations
from tests.suite_running import Suite

__all__ = ["api", "project"]


@pytest.fixture(scope="package")
def meant_well() -> None:
    """In place of that of end-to-end tests: here little is."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api_of_the_module(suite: Suite) -> AsyncIterator[Api]:
    suite.wait_ready()
    async with connected(suite.base_url) as connection:
        yield connection


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_project(api_of_the_module: Api) -> Project:
    """One for tests that leave it as they find it: signing up is made to take its time."""
    return await sign_up(api_of_the_module)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cast(suite: Suite, api_of_the_module: Api) -> Cast:
    return await assembled(suite, api_of_the_module)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def described(api_of_the_module: Api) -> dict[str, Operation]:
    """Every operation of the suite's own OpenAPI document, by its id."""
    document = (await api_of_the_module.call("GET", "/api/v1/openapi.json")).json
    return {operation.name: operation for operation in operations(document)}
