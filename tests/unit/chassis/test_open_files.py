"""How many files and connections a process may have open."""

import resource
from collections.abc import Iterator

import pytest

from chassis import open_files


@pytest.fixture
def few() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few")
def test_the_soft_limit_rises_to_the_hard_one() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert open_files.allow_all() == hard
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
