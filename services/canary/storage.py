"""The book on disk."""

import os
from pathlib import Path
from uuid import UUID

import msgspec

from chassis.ids import uuid7
from services.canary.domain import Book, Run


class _OneRun(msgspec.Struct):
    """What was kept when there was one series."""

    run: UUID
    accepted: int
    sequence: int
    pending: int


class BookFile:
    """One file. What was written survives kill -9 and the end of the machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Book:
        """The book; one of new runs where there is no file. Raises msgspec.MsgspecError where it is no book."""
        try:
            kept = self._path.read_bytes()
        except FileNotFoundError:
            return Book(flying=Run(id=uuid7()), resting=Run(id=uuid7()))
        try:
            return msgspec.json.decode(kept, type=Book)
        except msgspec.ValidationError:
            one = msgspec.json.decode(kept, type=_OneRun)
            flying = Run(id=one.run, accepted=one.accepted, sequence=one.sequence, pending=one.pending)
            return Book(flying=flying, resting=Run(id=uuid7()))

    def write(self, book: Book) -> None:
        """Replaces it as a whole; blocks until it is on disk."""
        unfinished = self._path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            file.write(msgspec.json.encode(book))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._path)
