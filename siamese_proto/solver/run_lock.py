"""The lock on a snapshot_prefix: one process at a time writes its snapshots, with an id that the snapshots carry.

During a run, the process that writes snapshots locks the file `.STEM.running` next to them. The file holds the ids of
the process and the run. The system releases the lock when the process ends, however it ends, so the file of a killed
run stops nobody. torchrun restarts all processes when one has died: the file then tells which snapshots belong to the
run, without comparing times.
"""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from siamese_proto.errors import NetError, quoted
from siamese_proto.files import is_at, release, take_lock
from siamese_proto.solver.log import Event, log
from siamese_proto.solver.settings import Settings


@dataclass
class _Lock:
    handle: int | None  # None: there is no file to lock
    run: str
    users: int = 0


_locks: dict[tuple[int, str], _Lock] = {}  # by process, because a forked one holds no locks, and file


@contextmanager
def run_lock(settings: Settings) -> Iterator[str]:
    """Reserve the snapshot_prefix for this process during the block; yields the id of the run.

    Blocks of one process can be nested.

    Raises:
        NetError: Another process has the lock.
    """
    folder, stem = os.path.split(settings.snapshot_prefix)
    path = os.path.join(os.path.realpath(folder), f".{stem}.running")
    key = (os.getpid(), path)
    lock = _locks.get(key) or _locks.setdefault(key, _acquire(settings, path))
    lock.users += 1
    is_needed = True  # after a crash, the next start reads the file
    try:
        yield lock.run
        is_needed = False
    finally:
        lock.users -= 1
        if not lock.users:
            del _locks[key]
            if lock.handle is not None:
                if not (is_needed and would_restart()):
                    with suppress(OSError):
                        os.unlink(path)
                release(lock.handle)


def _acquire(settings: Settings, path: str) -> _Lock:
    new_run = secrets.token_hex(8)
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if os.path.exists(path):
                _warn(path, error)
            return _Lock(None, new_run)  # a folder that is not writable fails when a snapshot is written
        words = os.read(handle, 100).decode(errors="replace").split()
        process, run = words if len(words) == 2 else ("", "")
        try:
            if not take_lock(handle):
                os.close(handle)
                raise NetError(
                    f"{settings.file}: another run, process {process or 'unknown'}, is writing snapshots with the "
                    f"snapshot_prefix {quoted(settings.snapshot_prefix)}; stop it, or give this run another prefix"
                )
        except OSError as error:
            _warn(path, error)
        if is_at(handle, path):  # otherwise the previous run has removed the file since it was opened
            run = run if restarts() and run else new_run
            os.truncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, f"{os.getpid()} {run}\n".encode())
            return _Lock(handle, run)
        release(handle)


def _warn(path: str, error: OSError) -> None:
    text = f"{path}: cannot be locked ({error.strerror}); make sure that no other run uses this snapshot_prefix"
    log(Event.SNAPSHOT, text, level=logging.WARNING)


def restarts() -> int:
    """Return how often torchrun has restarted this run because a process had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def would_restart() -> bool:
    """Whether torchrun would restart the run if this process ended with another status than 0."""
    return restarts() < int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
