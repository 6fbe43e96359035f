"""Which snapshot `--snapshot auto` goes on from."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from siamese_proto.errors import NetError
from siamese_proto.solver.log import log
from siamese_proto.weights import find_weights, read_state, read_weights

_PLACE = "caffe.cpp:232"


def newest_complete(prefix: str, *, since: int = 0) -> Path | None:
    """The solver state of the newest snapshot of the prefix that can be read whole, weights included; None: no such.

    Each that is passed over is logged with the reason; those written before `since`, nanoseconds of the system's
    clock, do not count.
    """
    for path in _newest_first(prefix):
        if path.stat().st_mtime_ns < since:
            continue
        try:
            read_weights(find_weights(path, read_state(path).learned_net))
        except NetError as error:
            text = f"Snapshot {path} is not complete, so the one before it is tried: {error}"
            log(_PLACE, text, level=logging.WARNING)
        else:
            return path
    log(_PLACE, f"No complete snapshot of {prefix} is there; starting from iteration 0")
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
