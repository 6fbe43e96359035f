"""Files that are finished or not there, and where the files named in a prototxt are looked for."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from siamese_proto.errors import NetError, did_you_mean, quoted


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise NetError, before any work is done, where a file of this name cannot be written."""
    target = Path(path)
    shown, folder = quoted(os.fspath(path)), target.parent
    if target.is_dir():
        raise NetError(f"cannot write {shown}: it is a folder")
    if not folder.is_dir():
        beside = folder.parent
        names = [entry.name for entry in beside.iterdir() if entry.is_dir()] if os.access(beside, os.R_OK) else []
        raise NetError(
            f"cannot write {shown}: there is no folder {quoted(str(folder))}{did_you_mean(folder.name, names)}"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NetError(f"cannot write {shown}: the folder {quoted(str(folder))} cannot be written to")


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that it is the old one or the whole new one, whatever happens. Raises NetError."""
    check_writable(path)
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(data)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """The path of a new, empty file in the folder of `path`, which takes the place of `path` once the block is done.

    Whatever happens, `path` is the old file or the whole new one. A killed process may leave the new file behind,
    under its name that begins with a dot and ends with `.partial`. Raises NetError where it cannot be written.
    """
    path = os.fspath(path)
    folder, name = os.path.split(os.path.abspath(path))
    partial = os.path.join(folder, f".{name[:200]}.{secrets.token_hex(4)}.partial")
    try:
        open(partial, "xb").close()
        yield partial
        with open(partial, "r+b") as file:
            os.fsync(file.fileno())
        if os.path.exists(path):
            shutil.copymode(path, partial)
        os.replace(partial, path)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch and h5py raise RuntimeError when the disk is full
        raise NetError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)


def _sync_folder(folder: str) -> None:
    if os.name == "nt":
        return  # folders cannot be opened there
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def find_path(path: str, folder: str | None) -> str | None:
    """`path` from the working directory (Caffe's rule), else from `folder`; None where it is at neither place."""
    candidates = [Path(path)] if folder is None else [Path(path), Path(folder) / path]
    return next((str(candidate) for candidate in candidates if candidate.exists()), None)


def where_tried(path: str, folder: str | None, beside: str = "the net") -> str:
    """The folders `find_path` looked in, for messages; `beside` is what lies in `folder`."""
    if Path(path).is_absolute() or folder is None or Path(folder).resolve() == Path.cwd():
        return "" if Path(path).is_absolute() else " in the working directory"
    return f" in the working directory or beside {beside}"
