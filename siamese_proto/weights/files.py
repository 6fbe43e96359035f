"""Files that are finished or not there, and errors that begin with the file they are about."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from siamese_proto.errors import WeightsError, quoted

Path = str | os.PathLike[str]

# What h5py and torch raise for damaged files, found by changing bytes at random.
DAMAGED = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError)


def problem(file: str, text: str, *, layer: str | None = None) -> WeightsError:
    """An error about a weights file; such files have no lines, so the path alone says where."""
    where = f"layer {quoted(layer)}: " if layer is not None else ""
    return WeightsError(f"{file}: {where}{text}")


@contextmanager
def replacing(path: Path) -> Iterator[str]:
    """The path of a new, empty file in the folder of `path`, which takes the place of `path` once the block is done.

    Whatever happens, `path` is the old file or the whole new one. A killed process may leave the new file behind,
    under its name that begins with a dot and ends with `.partial`. Raises WeightsError where it cannot be written.
    """
    path = os.fspath(path)
    folder, name = os.path.split(os.path.abspath(path))
    partial = os.path.join(folder, f".{name[:200]}.{secrets.token_hex(4)}.partial")
    try:
        open(partial, "xb").close()
        yield partial
        with open(partial, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch and h5py raise RuntimeError when the disk is full
        raise problem(path, f"cannot be written: {getattr(error, 'strerror', None) or error}") from error
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
