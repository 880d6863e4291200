"""The front page of a big service or package has a map, on which each of its modules stands."""

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

#: What each service has; the table in front of the journeys says what lives there.
_FLOOR_PLAN = (Path(__file__).parents[2] / "docs/path-of-a-request.md").read_text().partition("## One metric")[0]


@pytest.mark.parametrize(
    "name", ["services.auth", "services.ingest", "services.ingest.storage", "services.ingest.sinks"]
)
def test_every_module_stands_on_the_map_of_its_package(name: str) -> None:
    package = import_module(name)
    modules = {module.name for module in iter_modules(package.__path__)}
    on_the_map = set(re.findall(r"\w+(?=\.py|/)", f"{_FLOOR_PLAN} {package.__doc__}"))
    assert modules - on_the_map == set()
