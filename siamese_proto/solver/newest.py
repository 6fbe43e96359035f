"""Which snapshot `--snapshot auto` goes on from."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from siamese_proto.errors import NetError
from siamese_proto.solver.log import Event, log
from siamese_proto.weights import find_weights, read_state, read_weights


def newest_complete(prefix: str, *, run: str | None = None) -> Path | None:
    """The solver state of the newest snapshot of the prefix that can be read whole, weights included; None: no such.

    Each that is not complete is logged with the reason. With `run` only those that the run of this id wrote count.
    """
    for path in _newest_first(prefix):
        try:
            state = read_state(path)
            if run is not None and (state.resume is None or state.resume.run != run):
                continue
            read_weights(find_weights(path, state.learned_net))
        except NetError as error:
            text = f"Snapshot {path} is not complete, so the one before it is tried: {error}"
            log(Event.RESUMING, text, level=logging.WARNING)
        else:
            return path
    if run is None:
        log(Event.RESUMING, f"No complete snapshot of {prefix} is there; starting from iteration 0")
    return None


def _newest_first(prefix: str) -> list[Path]:
    folder, stem = os.path.split(prefix)
    pattern = re.compile(rf"{re.escape(stem)}_iter_(\d+)\.solverstate(\.h5)?")
    try:
        matches = [match for name in os.listdir(folder or ".") if (match := pattern.fullmatch(name))]
    except OSError:
        return []
    matches.sort(key=lambda match: (int(match[1]), match[0]), reverse=True)
    return [Path(folder) / match[0] for match in matches]
