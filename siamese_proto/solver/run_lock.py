"""Which run writes the snapshots of a prefix: one process at a time, with an id that its snapshots carry.

While a run lasts, the file `.STEM.running` next to the snapshots is locked by the process that writes them. It holds
the numbers of process and run. The system gives the lock back when the process ends, however it ends, so a file that a
killed run left behind stops nobody. torchrun starts all processes again when one has died: the file then tells which
snapshots are the run's own, whatever the clock says.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from siamese_proto.errors import NetError, quoted
from siamese_proto.files import is_at, release, take_lock
from siamese_proto.solver.log import Event, log
from siamese_proto.solver.newest import newest_complete
from siamese_proto.solver.settings import Settings


@dataclass
class _Claim:
    handle: int | None  # None: there is no file to lock
    run: str
    users: int = 0


_claims: dict[tuple[int, str], _Claim] = {}  # by process, for a forked one holds no locks, and file


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """Be the run that writes snapshots of the prefix for the time of the block; its id.

    Blocks of one process can contain each other. Raises NetError where another process is such a run.
    """
    folder, stem = os.path.split(settings.snapshot_prefix)
    mark = os.path.join(os.path.realpath(folder), f".{stem}.running")
    key = (os.getpid(), mark)
    claim = _claims.get(key) or _claims.setdefault(key, _claimed(settings, mark))
    claim.users += 1
    is_needed = True  # after a crash the next start needs the file
    try:
        yield claim.run
        is_needed = False
    finally:
        claim.users -= 1
        if not claim.users:
            del _claims[key]
            if claim.handle is not None:
                if not (is_needed and would_restart()):
                    with suppress(OSError):
                        os.unlink(mark)
                release(claim.handle)


def _claimed(settings: Settings, mark: str) -> _Claim:
    new = secrets.token_hex(8)
    while True:
        try:
            handle = os.open(mark, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if os.path.exists(mark):
                _warn(mark, error)
            return _Claim(None, new)  # a folder that cannot be written to stops whoever is about to write a snapshot
        process, run = _read(handle)
        try:
            if not take_lock(handle):
                os.close(handle)
                raise NetError(
                    f"{settings.file}: another run, process {process or 'unknown'}, is writing snapshots with the "
                    f"snapshot_prefix {quoted(settings.snapshot_prefix)}; stop it, or give this run another prefix"
                )
        except OSError as error:
            _warn(mark, error)
        if is_at(handle, mark):  # else the run before removed it meanwhile
            run = run if restarts() and run else new
            os.truncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, f"{os.getpid()} {run}\n".encode())
            return _Claim(handle, run)
        release(handle)


def _read(handle: int) -> tuple[str, str]:
    """The numbers of process and run in a file; empty where they are missing."""
    words = os.read(handle, 100).decode(errors="replace").split()
    return (words[0], words[1]) if len(words) == 2 else ("", "")


def _warn(mark: str, error: OSError) -> None:
    text = f"{mark}: cannot be locked ({error.strerror}); make sure that no other run uses this snapshot_prefix"
    log(Event.SNAPSHOT, text, level=logging.WARNING)


# Restarts: torchrun starts all processes again when one has died


def restarts() -> int:
    """How often torchrun has restarted this run."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def would_restart() -> bool:
    """Whether torchrun would start the run again if this process ended with another status than 0."""
    return restarts() < int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))


def newest_of_run(prefix: str, run: str) -> Path | None:
    """The newest complete snapshot that this run made before torchrun restarted it; None: there is none."""
    return newest_complete(prefix, run=run) if restarts() else None
