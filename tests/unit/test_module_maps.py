"""The front page of a big service has a map, on which each of its modules stands."""

import re
from importlib import import_module
from pathlib import Path

import pytest

#: What each service has; the table in front of the journeys says what lives there.
_FLOOR_PLAN = (Path(__file__).parents[2] / "docs/path-of-a-request.md").read_text().partition("## One metric")[0]


@pytest.mark.parametrize("package", ["services.auth"])
def test_every_module_stands_on_the_map_of_its_service(package: str) -> None:
    service = import_module(package)
    modules = {path.name for path in Path(str(service.__file__)).parent.glob("*.py")}
    on_the_map = set(re.findall(r"\w+\.py", f"{_FLOOR_PLAN} {service.__doc__}"))
    assert modules - on_the_map == set()
