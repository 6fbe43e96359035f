"""Atomic writing of files, locks, and the search for files that a prototxt names."""

import errno
import os
import re
import secrets
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from siamese_proto.errors import NetError, did_you_mean, quoted

if sys.platform != "win32":
    import fcntl

_MAX_LENGTH = 200  # characters of a final name in the name of its partial file
_NO_HANDLE = -1  # without locks
# Locks distinguish files that a running process writes from those of a killed one: the system releases its locks.
_held: set[int] = set()  # handles


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise NetError if a file of this name cannot be written; called before any work is done."""
    target = Path(path)
    shown, folder = quoted(os.fspath(path)), target.parent
    if target.is_dir():
        raise NetError(f"cannot write {shown}: it is a folder")
    if not folder.is_dir():
        parent = folder.parent
        names = [entry.name for entry in parent.iterdir() if entry.is_dir()] if os.access(parent, os.R_OK) else []
        hint = control_hint(str(folder)) + did_you_mean(folder.name, names)
        raise NetError(f"cannot write {shown}: there is no folder {quoted(str(folder))}{hint}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NetError(f"cannot write {shown}: the folder {quoted(str(folder))} cannot be written to")


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that it is the old one or the complete new one, whatever happens. Raises NetError."""
    check_writable(path)
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(data)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the path of a new, empty file in the folder of `path`, which replaces `path` after the block.

    Whatever happens, `path` is the old file or the complete new one. A killed process leaves the new file, as in
    `new_partial`. Raises NetError if it cannot be written.
    """
    path = os.fspath(path)
    folder, name = os.path.split(os.path.abspath(path))
    try:
        with new_partial(folder, name) as partial:
            yield partial
            with open(partial, "r+b") as file:
                os.fsync(file.fileno())
            if os.path.exists(path):
                shutil.copymode(path, partial)
            put_in_place(partial, path)
    except (OSError, RuntimeError) as error:  # torch and h5py raise RuntimeError when the disk is full
        raise NetError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def new_partial(folder: str, name: str, *, is_folder: bool = False) -> Iterator[str]:
    """Yield the path of a new, empty file (or folder) for `folder/name`; it is removed after the block if it exists.

    Its name begins with a dot and ends with `.partial`. A killed process leaves it; the next one that writes
    `folder/name` removes it. Raises OSError if it cannot be created.
    """
    for old in abandoned(folder, partials_of(re.escape(name[:_MAX_LENGTH]))):
        remove(old)
    handle = None
    while handle is None:
        partial = os.path.join(folder, f".{name[:_MAX_LENGTH]}.{secrets.token_hex(4)}.partial")
        if is_folder:
            os.mkdir(partial)
        else:
            open(partial, "xb").close()
        handle = _locked(partial)
    try:
        yield partial
    finally:
        remove(partial)
        if handle != _NO_HANDLE:
            release(handle)


def _locked(path: str) -> int | None:
    """Lock a new file or folder. None: another process removed it as abandoned before it was locked."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError:  # Windows opens no folders
        return _NO_HANDLE
    try:
        if take_lock(handle) and is_at(handle, path):
            return handle
    except OSError:  # without locks no process removes it as abandoned
        os.close(handle)
        return _NO_HANDLE
    release(handle)
    return None


def partials_of(names: str) -> re.Pattern[str]:
    """Return the pattern of names of partial files for final names that match a pattern."""
    return re.compile(rf"\.(?:{names})\.[0-9a-f]{{8}}\.partial")


def abandoned(folder: str, pattern: re.Pattern[str]) -> Iterator[str]:
    """Yield the paths in a folder with names that match and without a lock: the processes that made them were killed.

    Each is locked while the caller handles it. Without locks there are none.
    """
    try:
        names = [name for name in os.listdir(folder or ".") if pattern.fullmatch(name)]
    except OSError:
        return
    for name in sorted(names):
        path = os.path.join(folder, name)
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                if take_lock(handle) and is_at(handle, path):
                    yield path
            finally:
                release(handle)


def remove(path: str) -> None:
    """Remove a file or a folder with its content, if it exists and as far as possible."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


def put_in_place(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename a finished file or folder to its final name, and flush the rename to the disk."""
    os.replace(source, target)
    sync(os.path.dirname(os.path.abspath(target)))


def sync(path: str | os.PathLike[str]) -> None:
    """Flush a file or folder to the disk."""
    if os.name == "nt":
        return  # it cannot open folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def find_path(path: str, folder: str | None) -> str | None:
    """Return `path` in the working directory (Caffe's rule), else in `folder`; None if it exists in neither."""
    candidates = [Path(path)] if folder is None else [Path(path), Path(folder) / path]
    return next((str(candidate) for candidate in candidates if candidate.exists()), None)


def where_tried(path: str, folder: str | None, neighbor: str = "the net") -> str:
    """Return the folders that `find_path` searched, for messages; `neighbor` is the file in `folder`."""
    if Path(path).is_absolute() or folder is None or Path(folder).resolve() == Path.cwd():
        tried = "" if Path(path).is_absolute() else " in the working directory"
    else:
        tried = f" in the working directory or next to {neighbor}"
    return tried + control_hint(path)


_CONTROL_NAMES = {"\n": "a newline", "\t": "a tab", "\r": "a carriage return"}


def control_hint(path: str) -> str:
    """Explain a control character in a path, in parentheses, for messages; an empty text if there is none.

    `"C:\\new"` in a prototxt contains a newline: a backslash in quotes begins an escape.
    """
    character = next((c for c in path if unicodedata.category(c) == "Cc"), None)
    if character is None:
        return ""
    name = _CONTROL_NAMES.get(character, "a control character")
    written = character.encode("unicode_escape").decode()
    return f" (it contains {name}: in quotes, {written} is one character; write / or \\\\ instead of each \\)"


def take_lock(handle: int) -> bool:
    """Lock an open file or folder until `release`, or the end of this process. False: another process holds the lock.

    Raises OSError if the file system or the operating system has no locks.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOLCK, "the operating system has no such locks")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    _held.add(handle)
    return True


def release(handle: int) -> None:
    """Close a handle, and release its lock if it has one."""
    _held.discard(handle)
    os.close(handle)


def is_at(handle: int, path: str) -> bool:
    """Return whether an open file still has this path: it may have been removed or replaced before it was locked."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(handle), os.stat(path))
    return False


def _close_locks() -> None:
    """Close the handles in a forked child, as a lock lasts until the last copy of its handle is closed."""
    for handle in _held:
        with suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locks)
