"""LMDB, the backend of most Caffe databases: one folder with `data.mdb`, or that file alone."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from siamese_proto.data.store import Database, Record, cannot_write
from siamese_proto.errors import DataError, quoted

_FIRST_MAP_SIZE = 1 << 26  # bytes; doubled whenever it is full

# The library refuses to open one file twice in a process, as TRAIN and TEST nets on one database need: those share it.
_open: dict[tuple[int, int], tuple[Any, int]] = {}  # (device, inode) of the file -> environment, number of users
_open_lock = threading.Lock()


def data_file(path: str) -> Path:
    """The file that holds the records, of a path that names it or its folder."""
    return Path(path) / "data.mdb" if Path(path).is_dir() else Path(path)


class LmdbDatabase(Database):
    """Opened read-only and without locks, so that it works in folders one may not write to."""

    backend = "LMDB"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._environment, self._key = _share(path)

    def records(self, first: bytes | None = None) -> Iterator[Record]:
        import lmdb

        try:
            with self._environment.begin() as transaction, transaction.cursor() as cursor:
                if cursor.first() if first is None else cursor.set_range(first):
                    yield from cursor
        except lmdb.Error as error:
            raise damaged(self.path, error) from error

    def keys(self) -> Iterator[bytes]:
        import lmdb

        try:
            with self._environment.begin() as transaction, transaction.cursor() as cursor:
                yield from cursor.iternext(keys=True, values=False)
        except lmdb.Error as error:
            raise damaged(self.path, error) from error

    def count(self) -> int:
        return int(self._environment.stat()["entries"])

    def close(self) -> None:
        key, self._key = self._key, None
        if key is None:
            return
        with _open_lock:
            environment, users = _open.pop(key)
            if users > 1:
                _open[key] = environment, users - 1
            else:
                environment.close()


def damaged(path: str, problem: object) -> DataError:
    """The error for files that are there but cannot be read."""
    text = str(problem).removeprefix(f"{path}: ")
    return DataError(f"LMDB database {quoted(path)} is damaged or incomplete ({text}); copy it or make it again")


def _share(path: str) -> tuple[Any, tuple[int, int] | None]:
    import lmdb

    file = data_file(path)
    status = file.stat()
    key = (status.st_dev, status.st_ino)
    with _open_lock:
        if key in _open:
            environment, users = _open[key]
        else:
            if status.st_size == 0:
                raise damaged(path, f"{file.name} has no bytes")
            try:
                environment = lmdb.open(
                    str(file), subdir=False, readonly=True, create=False, lock=False, readahead=False, max_dbs=0
                )
            except lmdb.Error as error:
                raise damaged(path, str(error).removeprefix(f"{file}: ")) from error
            users = 0
            try:
                _check_length(environment, status.st_size, path)
            except DataError:
                environment.close()
                raise
        _open[key] = environment, users + 1
    return environment, key


def _check_length(environment: Any, size: int, path: str) -> None:
    """Refuse a file cut short: reading a page beyond its end would kill the process."""
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size < needed:
        raise damaged(path, f"{size} bytes of at least {needed}")


class LmdbWriter:
    """Writes a new LMDB into a folder that nobody else uses."""

    def __init__(self, folder: Path) -> None:
        import lmdb

        # One sync at the end: until then the folder has a name that nobody looks for.
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
        in_order = all(before < after for before, after in itertools.pairwise(keys))  # then pages are filled up
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
