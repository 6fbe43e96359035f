"""What a database of records is, whichever library it is kept with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import ClassVar, Literal, Protocol

from siamese_proto.errors import DataError

Backend = Literal["LEVELDB", "LMDB"]
Record = tuple[bytes, bytes]  # key, value


class Database(ABC):
    """Records in the order of their keys, open for reading.

    May be used from one thread at a time; several may be open on one path, in one process or in many.
    """

    backend: ClassVar[Backend]

    def __init__(self, path: str) -> None:
        self.path = path

    @abstractmethod
    def records(self, first: bytes | None = None) -> Iterator[Record]:
        """Key and value of every record, from the key `first` on; DataError where the files are damaged."""

    @abstractmethod
    def keys(self) -> Iterator[bytes]:
        """The keys alone, which takes a fraction of the time."""

    @abstractmethod
    def count(self, most: int | None = None) -> int:
        """How many records there are. LevelDB does not keep this number: it walks through the keys.

        With `most` it stops where there are more than that.
        """

    @abstractmethod
    def close(self) -> None:
        """Give files and memory back; a second call does nothing."""

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def cannot_write(error: Exception) -> DataError:
    """The error for a database that the disk does not take; `error` is the library's."""
    text = error.args[0] if error.args else error
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return DataError(f"the database cannot be written ({text.strip(': ')}); see whether the disk is full")


class Writer(Protocol):
    """A database being made."""

    def put(self, records: Sequence[Record]) -> None:
        """Add records; fastest in the order of their keys, a thousand or so at once."""

    def finish(self) -> None:
        """Bring everything to the disk and close."""

    def abandon(self) -> None:
        """Close, whatever becomes of the files."""
