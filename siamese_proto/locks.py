"""Locks on files and folders, which the system takes back when a process ends, however it ends.

They tell what a living process is writing from what a killed one has left. Windows has none here.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

if sys.platform != "win32":
    import fcntl

_held: set[int] = set()  # handles


def take_lock(handle: int) -> bool:
    """Lock an open file or folder until `release`, or the end of this process. False: somebody else holds it.

    Raises OSError where the file system, or the system itself, has no locks.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOLCK, "the system has no such locks")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    _held.add(handle)
    return True


def release(handle: int) -> None:
    """Close a handle, and give back the lock on it if there is one."""
    _held.discard(handle)
    os.close(handle)


def is_at(handle: int, path: str) -> bool:
    """Whether an open file still has this path: it may have been removed or replaced before it was locked."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(handle), os.stat(path))
    return False


def _let_go() -> None:
    """In a forked child: a lock lasts until the last copy of its handle is closed, and the child may outlive us."""
    for handle in _held:
        with suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
