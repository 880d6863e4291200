"""The book on disk."""

import os
from pathlib import Path

import msgspec

from chassis.ids import uuid7
from services.canary.domain import Book, Run


class BookFile:
    """One file. What was written survives kill -9 and the end of the machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Book:
        """The book; one of new runs where there is no file. Raises msgspec.MsgspecError where it is no book."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Book)
        except FileNotFoundError:
            return Book(flying=Run(id=uuid7()), resting=Run(id=uuid7()))

    def write(self, book: Book) -> None:
        """Replaces it as a whole; blocks until it is on disk."""
        unfinished = self._path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            file.write(msgspec.json.encode(book))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._path)
