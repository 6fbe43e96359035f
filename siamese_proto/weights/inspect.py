"""The content of a weights file or solver state, in figures."""

import math
import os
from dataclasses import dataclass, replace

import numpy as np

from siamese_proto.errors import WeightsError
from siamese_proto.weights.blobs import Array
from siamese_proto.weights.files import Path
from siamese_proto.weights.formats import read_weights
from siamese_proto.weights.solverstate import StoredState, read_state
from siamese_proto.weights.stored import with_keys

_CHUNK = 1 << 22  # numbers processed at a time, so that a mapped file is not loaded into memory


@dataclass(frozen=True)
class Row:
    """One array: its place, and figures of its finite numbers."""

    layer: str
    type: str
    blob: int
    shape: tuple[int, ...]
    kind: str  # float32, float64
    least: float | None
    most: float | None
    mean: float | None
    not_finite: int
    same_as: str = ""  # `conv1/0`, if an earlier layer's blob is the same array


@dataclass(frozen=True)
class Contents:
    """A file's arrays in its order, and lines of text about the rest."""

    file: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    total: str


def contents(path: Path) -> Contents:
    """List the arrays of a weights file or solver state in any format. Raises WeightsError if it is neither."""
    file = os.fspath(path)
    if "solverstate" in os.path.basename(file):
        return _of_state(file, read_state(path))
    try:
        return _of_weights(path)
    except WeightsError as error:
        if "looks like a solver state" not in str(error):
            raise
        return _of_state(file, read_state(path))


def _of_weights(path: Path) -> Contents:
    stored = with_keys(read_weights(path))
    owners: dict[str, str] = {}
    rows: list[Row] = []
    for layer in stored.layers:
        for index, blob in enumerate(layer.blobs):
            if blob is not None:
                place = f"{layer.name}/{index}"
                owner = owners.setdefault(layer.keys[index] if index < len(layer.keys) else place, place)
                rows.append(_row(layer.name, layer.type, index, blob, "" if owner == place else owner))
    copies = sum(bool(row.same_as) for row in rows)
    count = sum(math.prod(row.shape) for row in rows if not row.same_as)
    total = f"{len(stored.layers)} layers, {len(rows) - copies} arrays, {count:,} numbers"
    if copies:
        total += "; 1 blob is a copy" if copies == 1 else f"; {copies} blobs are copies"
    return Contents(stored.file, (f"{stored.file}: {stored.name or 'a net without a name'}",), tuple(rows), total)


def _of_state(file: str, state: StoredState) -> Contents:
    head = [f"{file}: a solver state after iteration {state.iteration}, step {state.current_step} of the policy"]
    head.append(f"weights: {state.learned_net or 'not named'}")
    if state.resume is not None:
        head.append("with the state of siamese-proto that resumes a run bit for bit")
    rows = tuple(_row("history", "", index, array) for index, array in enumerate(state.history))
    count = sum(math.prod(row.shape) for row in rows)
    return Contents(file, tuple(head), rows, f"{len(rows)} arrays, {count:,} numbers")


def _row(layer: str, kind: str, index: int, array: Array, same_as: str = "") -> Row:
    least, most, total, count = math.inf, -math.inf, 0.0, 0
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        piece = flat[start : start + _CHUNK]
        finite = piece[np.isfinite(piece)]
        if finite.size:
            least, most = min(least, float(finite.min())), max(most, float(finite.max()))
            total += float(finite.sum(dtype=np.float64))
            count += finite.size
    row = Row(layer, kind, index, array.shape, array.dtype.name, least, most, 0.0, array.size - count, same_as)
    return replace(row, mean=total / count) if count else replace(row, least=None, most=None, mean=None)
