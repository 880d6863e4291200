"""Files that are there once all of them is written."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """To be written in the block, for its owner alone. Raises FileExistsError where there is one already."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as folder:
        unfinished = Path(folder) / path.name
        unfinished.touch(0o600)
        with unfinished.open("wb") as file:
            yield file
        if path.exists():
            raise FileExistsError(f"{path} is there already")
        unfinished.rename(path)
