"""LevelDB, Caffe's default backend.

The library takes an exclusive lock and writes when it opens a database, so a database itself is never opened for
reading, only a private view of it: a temporary folder with links to its table files, which never change, and copies of
the small files that the library rewrites. Readers then do not disturb each other, and read-only folders serve too. One
that another process holds open is read as it was when reading began, and the log says so.
"""

from __future__ import annotations

import contextlib
import importlib
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

from siamese_proto.data.store import Database, Record, cannot_write
from siamese_proto.errors import DataError, quoted

_log = logging.getLogger(__name__)
_WRITE_BUFFER = 1 << 26  # bytes kept in memory before a table file is written
_OPEN_FILES = 100
_VIEW = "siamese_proto_leveldb_"  # then the process's number


def _library() -> Any:
    return importlib.import_module("plyvel" if sys.version_info < (3, 12) else "plyvel_next")


class LevelDatabase(Database):
    """Reads a private view; see the module's text."""

    backend = "LEVELDB"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        library = _library()
        self._error = library.Error
        _remove_views_of_the_dead()
        view = tempfile.mkdtemp(prefix=f"{_VIEW}{os.getpid()}_")
        # Also run when the interpreter ends, so that no view outlives it.
        self._remove_view = weakref.finalize(self, shutil.rmtree, view, ignore_errors=True)
        try:
            _make_view(Path(path), Path(view))
            self._database: Any = library.DB(view, create_if_missing=False, max_open_files=_OPEN_FILES)
        except library.Error as error:
            self._remove_view()
            raise damaged(path, error, view) from error
        except OSError as error:
            self._remove_view()
            raise damaged(path, error.strerror) from error
        self._view = view
        holder = _holder(Path(path))
        if holder:
            _log.info(
                "LevelDB %s is held open by process %d; it is read as it was when reading began", quoted(path), holder
            )

    def records(self, first: bytes | None = None) -> Iterator[Record]:
        return self._walk(first, lambda iterator: iterator.item())

    def keys(self) -> Iterator[bytes]:
        return self._walk(None, lambda iterator: iterator.key())

    def _walk(self, first: bytes | None, take: Callable[[Any], Any]) -> Iterator[Any]:
        # The raw iterator: the library's other one ends without a word where the first block is damaged.
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

    def count(self) -> int:
        return sum(1 for _ in self.keys())

    def close(self) -> None:
        if self._remove_view.alive:
            self._database.close()
            self._remove_view()


def _holder(folder: Path) -> int:
    """The number of another process that has the database open, 0 where there is none or that cannot be told.

    The lock is asked about, not tried: holding it for a moment would keep out a process that wants it just then.
    """
    if sys.platform != "linux":
        return 0
    import fcntl

    form = "@hhqqi"  # struct flock: type, whence, start, length, process
    try:
        with open(folder / "LOCK", "rb") as file:
            asked = struct.pack(form, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, process = struct.unpack(form, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except OSError:
        return 0
    return 0 if kind == fcntl.F_UNLCK else int(process)


def _remove_views_of_the_dead() -> None:
    """A killed process cannot remove its views; the next reader does."""
    for view in Path(tempfile.gettempdir()).glob(f"{_VIEW}*_*"):
        process = view.name.removeprefix(_VIEW).split("_")[0]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(view, ignore_errors=True)


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        return True  # a signal of 0 would end it there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def damaged(path: str, problem: object, view: str = "") -> DataError:
    """The error for files that are there but cannot be read; `view` is taken out of the library's words."""
    first = problem.args[0] if isinstance(problem, Exception) and problem.args else problem
    text = first.decode(errors="replace") if isinstance(first, bytes) else str(first)
    text = text.replace(f"{view}/", "") if view else text
    return DataError(f"LevelDB database {quoted(path)} is damaged or incomplete ({text}); copy it or make it again")


def _make_view(folder: Path, view: Path) -> None:
    current = (folder / "CURRENT").read_bytes()
    manifest = current.decode("ascii", errors="replace").strip()
    if not manifest.startswith("MANIFEST-") or not (folder / manifest).is_file():
        raise damaged(str(folder), "CURRENT names no manifest that is there")
    shutil.copyfile(folder / manifest, view / manifest)
    (view / "CURRENT").write_bytes(current)
    for file in folder.iterdir():
        if file.suffix == ".log":
            shutil.copyfile(file, view / file.name)
        elif file.suffix in (".ldb", ".sst"):
            _link(file, view / file.name)


def _link(file: Path, link: Path) -> None:
    """A symbolic link, else (they need a privilege on Windows) a hard one, else a copy."""
    with contextlib.suppress(OSError):
        return link.symlink_to(file.resolve())
    with contextlib.suppress(OSError):
        return os.link(file, link)
    shutil.copyfile(file, link)
    return None


class LevelWriter:
    """Writes a new LevelDB into a folder that nobody else uses."""

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
        # Everything goes into table files: a reader links those, but has to copy and replay what is in the log.
        try:
            self._database.compact_range()
            self._database.write_batch(sync=True).write()  # compacting is silent about a full disk, the next write not
        except self._error as error:
            raise cannot_write(error) from error
        self._database.close()
        (self._folder / "LOG").unlink(missing_ok=True)  # the library's diary, which names the temporary folder

    def abandon(self) -> None:
        self._database.close()
