"""LevelDB, Caffe's default backend.

The library takes an exclusive lock and writes when it opens a database. For reading, this module therefore opens a
private view instead of the database itself: a temporary folder with links to its table files, which never change, and
copies of the small files that the library rewrites. Readers then do not disturb each other, and read-only folders work.
A database that another process holds open is read as it was when reading began; a log line says so.
"""

import contextlib
import errno
import importlib
import itertools
import logging
import os
import shutil
import struct
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from siamese_proto.data.databases.leveldb_files import (
    LostRecordsError,
    check_complete,
    link,
    read_manifest,
    table_files,
)
from siamese_proto.data.databases.store import Database, Record, cannot_write
from siamese_proto.errors import DataError, quoted

_log = logging.getLogger(__name__)
_WRITE_BUFFER = 1 << 26  # bytes kept in memory before a table file is written
_OPEN_FILES = 100
_ATTEMPTS = 10  # to create a view while the files change
_FILES = "files"  # of the database, within its view
_VIEW = "siamese_proto_leveldb_"  # followed by the process ID


def _library() -> Any:
    return importlib.import_module("plyvel" if sys.version_info < (3, 12) else "plyvel_next")


class LevelDatabase(Database):
    """Reads a private view; see the module docstring."""

    backend = "LEVELDB"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        library = _library()
        self._error = library.Error
        holder = _holder(Path(path))
        view = _new_view(path)
        # Also run when the interpreter ends, so that no view outlives it.
        self._remove_view = weakref.finalize(self, shutil.rmtree, view, ignore_errors=True)
        try:
            self._database: Any = _open_view(Path(path), Path(view), library, held=holder > 0)
        except BaseException:
            self._remove_view()
            raise
        self._view = str(Path(view, _FILES))
        if holder:
            _log.info(
                "LevelDB %s is held open by process %d; it is read as it was when reading began", quoted(path), holder
            )

    def records(self, first: bytes | None = None) -> Iterator[Record]:
        return self._walk(first, lambda iterator: iterator.item())

    def keys(self) -> Iterator[bytes]:
        return self._walk(None, lambda iterator: iterator.key())

    def _walk(self, first: bytes | None, take: Callable[[Any], Any]) -> Iterator[Any]:
        # Use the raw iterator: the regular one ends without an error if the first block is damaged.
        try:
            with self._database.raw_iterator(verify_checksums=True, fill_cache=False) as iterator:
                if first is None:
                    iterator.seek_to_first()
                else:
                    iterator.seek(first)
                while iterator.valid():
                    yield take(iterator)
                    iterator.next()
        except self._error as error:
            raise damaged(self.path, error, self._view) from error

    def count(self, most: int | None = None) -> int:
        keys = self.keys() if most is None else itertools.islice(self.keys(), most + 1)
        return sum(1 for _ in keys)

    def close(self) -> None:
        if self._remove_view.alive:
            self._database.close()
            self._remove_view()


def _holder(folder: Path) -> int:
    """Return the ID of another process that has the database open, or 0 if there is none or it cannot be determined.

    This queries the lock without taking it: taking it even briefly could lock out another process.
    """
    if sys.platform != "linux":
        return 0
    import fcntl

    form = "@hhqqi"  # struct flock: l_type, l_whence, l_start, l_len, l_pid
    try:
        with open(folder / "LOCK", "rb") as file:
            query = struct.pack(form, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, process = struct.unpack(form, fcntl.fcntl(file, fcntl.F_GETLK, query))
    except OSError:
        return 0
    return 0 if kind == fcntl.F_UNLCK else int(process)


def _remove_views_of_the_dead() -> None:
    """Remove the views of killed processes."""
    for view in Path(tempfile.gettempdir()).glob(f"{_VIEW}*_*"):
        process = view.name.removeprefix(_VIEW).split("_")[0]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(view, ignore_errors=True)


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        return True  # on Windows, signal 0 would end the process
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def damaged(path: str, problem: object, view: str = "") -> DataError:
    """Return the error for files that cannot be read. The path `view` is removed from the library's message."""
    first = problem.args[0] if isinstance(problem, Exception) and problem.args else problem
    text = first.decode(errors="replace") if isinstance(first, bytes) else str(first)
    text = text.replace(f"{view}/", "") if view else text
    return DataError(f"LevelDB database {quoted(path)} is damaged or incomplete ({text}); copy it or make it again")


def _new_view(path: str) -> str:
    try:
        _remove_views_of_the_dead()
        return tempfile.mkdtemp(prefix=f"{_VIEW}{os.getpid()}_")
    except OSError as error:
        raise _no_room(path, str(error.strerror)) from error


def _no_room(path: str, problem: str) -> DataError:
    return DataError(
        f"LevelDB database {quoted(path)} needs a temporary folder to be read, and none can be used ({problem});"
        " set TMPDIR to a folder that can be written to"
    )


def _open_view(folder: Path, view: Path, library: Any, *, held: bool) -> Any:
    """Open a view of `folder` in `view`. Try again if a writer changed the files during the attempt."""
    for _ in range(_ATTEMPTS):
        before = _state(folder)
        try:
            return _opened(folder, view / _FILES, library, held=held)
        except DataError as error:
            problem = error
            shutil.rmtree(view / _FILES)
        if _state(folder) == before:
            break
    raise problem


def _opened(folder: Path, files: Path, library: Any, *, held: bool) -> Any:
    try:
        files.mkdir()
        _make_view(folder, files)
        with tempfile.TemporaryDirectory(dir=files.parent) as scratch:
            check_complete(folder, files, library, Path(scratch), being_written=held)
        return library.DB(str(files), create_if_missing=False, max_open_files=_OPEN_FILES, paranoid_checks=True)
    except library.Error as error:
        raise damaged(str(folder), error, str(files)) from error
    except LostRecordsError as error:
        raise damaged(str(folder), error) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            raise _no_room(str(folder), str(error.strerror)) from error
        raise damaged(str(folder), error.strerror) from error


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of the files that change when a process writes to the database."""
    with contextlib.suppress(OSError):
        files = [file for file in folder.iterdir() if file.name not in ("LOCK", "LOG", "LOG.old")]
        return sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return []


def _make_view(folder: Path, view: Path) -> None:
    current = (folder / "CURRENT").read_bytes()
    manifest = current.decode("ascii", errors="replace").strip()
    if not manifest.startswith("MANIFEST-") or not (folder / manifest).is_file():
        raise damaged(str(folder), "CURRENT names no existing manifest")
    shutil.copyfile(folder / manifest, view / manifest)
    (view / "CURRENT").write_bytes(current)
    for log in folder.glob("*.log"):
        shutil.copyfile(log, view / log.name)
    tables = read_manifest(view).tables
    for table in table_files(folder):
        # Skip leftover tables: the library would write new ones under their names, through the links.
        if int(table.stem) in tables:
            link(table, view / table.name)


class LevelWriter:
    """Writes a new LevelDB into a folder that no other process uses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        library = _library()
        self._error = library.Error
        try:
            self._database: Any = library.DB(
                os.fspath(folder),
                create_if_missing=True,
                error_if_exists=True,
                write_buffer_size=_WRITE_BUFFER,
                max_open_files=_OPEN_FILES,
            )
        except library.Error as error:
            raise cannot_write(error) from error

    def put(self, records: Sequence[Record]) -> None:
        try:
            with self._database.write_batch() as batch:
                for key, value in records:
                    batch.put(key, value)
        except self._error as error:
            raise cannot_write(error) from error

    def finish(self) -> None:
        # Move all records into table files: readers link those, but must copy and replay the log.
        try:
            self._database.compact_range()
            self._database.write_batch(sync=True).write()  # compaction ignores a full disk; the next write reports it
        except self._error as error:
            raise cannot_write(error) from error
        self._database.close()
        (self._folder / "LOG").unlink(missing_ok=True)  # the library's own log, which names the temporary folder

    def abandon(self) -> None:
        self._database.close()
