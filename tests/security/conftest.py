"""Fixtures: `api` and `project`, as end-to-end tests have them."""

from tests.e2e.conftest import api, project

__all__ = ["api", "project"]
