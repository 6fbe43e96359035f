"""LMDB, the backend of most Caffe databases: one folder with `data.mdb`, or that file alone."""

import contextlib
import itertools
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from siamese_proto.data.databases.lmdb_file import LmdbFile, LmdbFileError
from siamese_proto.data.databases.store import Database, Record, cannot_write
from siamese_proto.errors import DataError, quoted

_FIRST_MAP_SIZE = 1 << 26  # bytes; doubled whenever it is full


def data_file(path: str) -> Path:
    """Return the file with the records; `path` is that file or its folder."""
    return Path(path) / "data.mdb" if Path(path).is_dir() else Path(path)


class LmdbDatabase(Database):
    """Reads with `LmdbFile`, without locks, so that read-only folders work."""

    backend = "LMDB"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        if data_file(path).stat().st_size == 0:
            raise damaged(path, f"{data_file(path).name} has no bytes")
        try:
            self._file = LmdbFile(data_file(path))
        except OSError as error:
            raise damaged(path, error.strerror) from error
        try:
            self.count()
        except DataError:
            self._file.close()
            raise

    def records(self, first: bytes | None = None) -> Iterator[Record]:
        return self._guarded(self._file.records(first))

    def keys(self) -> Iterator[bytes]:
        return (key for key, _ in self._guarded(self._file.records(values=False)))

    def count(self, most: int | None = None) -> int:
        with self._reported():
            return self._file.tree().entries

    def close(self) -> None:
        self._file.close()

    def _guarded(self, records: Iterator[Record]) -> Iterator[Record]:
        with self._reported():
            yield from records

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (LmdbFileError, struct.error) as error:
            raise damaged(self.path, error) from error
        except OSError as error:
            raise damaged(self.path, error.strerror) from error


def damaged(path: str, problem: object) -> DataError:
    """Return the error for files that exist but cannot be read."""
    return DataError(f"LMDB database {quoted(path)} is damaged or incomplete ({problem}); copy it or make it again")


class LmdbWriter:
    """Writes a new LMDB into a folder that no other process uses."""

    def __init__(self, folder: Path) -> None:
        import lmdb

        # Sync only once, in `finish`: until then the folder has a temporary name.
        try:
            self._environment: Any = lmdb.open(
                os.fspath(folder), map_size=_FIRST_MAP_SIZE, lock=False, sync=False, metasync=False, max_dbs=0
            )
        except lmdb.Error as error:
            raise cannot_write(error) from error
        self._last_key = b""

    def put(self, records: Sequence[Record]) -> None:
        import lmdb

        keys = [self._last_key, *(key for key, _ in records)]
        in_order = all(before < after for before, after in itertools.pairwise(keys))  # LMDB then fills pages completely
        while True:
            try:
                with self._environment.begin(write=True) as transaction, transaction.cursor() as cursor:
                    cursor.putmulti(records, append=in_order)
                break
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                raise cannot_write(error) from error
        self._last_key = max(keys)

    def finish(self) -> None:
        import lmdb

        try:
            self._environment.sync(True)
        except lmdb.Error as error:
            raise cannot_write(error) from error
        self._environment.close()

    def abandon(self) -> None:
        self._environment.close()
