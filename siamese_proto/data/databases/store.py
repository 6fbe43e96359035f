"""Interfaces of databases of records, for any backend."""

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

    Use an instance from one thread at a time. Several instances may be open on one path, in one or several processes.
    """

    backend: ClassVar[Backend]

    def __init__(self, path: str) -> None:
        self.path = path

    @abstractmethod
    def records(self, first: bytes | None = None) -> Iterator[Record]:
        """Yield key and value of every record from the key `first` on. Raises DataError if the files are damaged."""

    @abstractmethod
    def keys(self) -> Iterator[bytes]:
        """Yield only the keys, which is much faster."""

    @abstractmethod
    def count(self, most: int | None = None) -> int:
        """Return the number of records. LevelDB does not store it, so this iterates over all keys there.

        With `most`, counting may stop at `most + 1`.
        """

    @abstractmethod
    def close(self) -> None:
        """Release files and memory; a second call does nothing."""

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def cannot_write(error: Exception) -> DataError:
    """Return the error for a database that cannot be written; `error` comes from the library."""
    text = error.args[0] if error.args else error
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return DataError(f"the database cannot be written ({text.strip(': ')}); check whether the disk is full")


class Writer(Protocol):
    """Writes a new database."""

    def put(self, records: Sequence[Record]) -> None:
        """Add records. Fastest in key order with about a thousand records per call."""

    def finish(self) -> None:
        """Flush everything to disk and close."""

    def abandon(self) -> None:
        """Close without finishing the files."""
