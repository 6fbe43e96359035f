"""Files that are finished or not there."""

from __future__ import annotations

import os
import tempfile
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
    target = Path(path)
    partial = None
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".tmp", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, _mode(target))
        os.replace(partial, target)
        partial = None
    except OSError as error:
        raise NetError(f"cannot write {quoted(os.fspath(path))}: {error.strerror or error}") from error
    finally:
        if partial is not None:
            os.unlink(partial)


def _mode(target: Path) -> int:
    """The permissions of the file that is replaced, or of one opened in the plain way."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
