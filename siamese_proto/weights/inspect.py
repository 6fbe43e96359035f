"""What a file of weights or a solver state holds, in figures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from siamese_proto.errors import WeightsError
from siamese_proto.weights.blobs import Array
from siamese_proto.weights.files import Path
from siamese_proto.weights.formats import read_weights
from siamese_proto.weights.solverstate import StoredState, read_state
from siamese_proto.weights.stored import StoredLayer, with_keys

_CHUNK = 1 << 22  # numbers looked at at a time: a mapped file is not brought into memory


@dataclass(frozen=True)
class Row:
    """One array: where it stands, and its numbers; those that are not finite count in none of the three figures."""

    layer: str
    type: str
    blob: int
    shape: tuple[int, ...]
    kind: str  # float32, float64
    least: float | None
    most: float | None
    mean: float | None
    not_finite: int
    same_as: str = ""  # `conv1/0`, where another layer's blob before this one is the same array


@dataclass(frozen=True)
class Contents:
    """A file's arrays in its order, and lines of what else there is to say."""

    file: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    total: str


def contents(path: Path) -> Contents:
    """The arrays of a weights file or solver state in any format. Raises WeightsError where it is neither."""
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
    first: dict[str, str] = {}
    rows: list[Row] = []
    for layer in stored.layers:
        rows.extend(_rows(layer, first))
    own = [row for row in rows if not row.same_as]
    count = sum(_count(row.shape) for row in own)
    total = f"{len(stored.layers)} layers, {len(own)} arrays, {count:,} numbers"
    if len(own) < len(rows):
        copies = len(rows) - len(own)
        total += "; 1 blob is a copy" if copies == 1 else f"; {copies} blobs are copies"
    head = (f"{stored.file}: {stored.name or 'a net without a name'}",)
    return Contents(stored.file, head, tuple(rows), total)


def _rows(layer: StoredLayer, first: dict[str, str]) -> Iterator[Row]:
    for index, blob in enumerate(layer.blobs):
        if blob is None:
            continue
        place = f"{layer.name}/{index}"
        key = layer.keys[index] if index < len(layer.keys) else place
        owner = first.setdefault(key, place)
        yield _row(layer.name, layer.type, index, blob, "" if owner == place else owner)


def _of_state(file: str, state: StoredState) -> Contents:
    head = [f"{file}: a solver state after iteration {state.iteration}, step {state.current_step} of the policy"]
    head.append(f"weights: {state.learned_net or 'not named'}")
    if state.resume is not None:
        head.append("with what this program needs to go on bit for bit")
    rows = [_row("history", "", index, array) for index, array in enumerate(state.history)]
    count = sum(_count(row.shape) for row in rows)
    return Contents(file, tuple(head), tuple(rows), f"{len(rows)} arrays, {count:,} numbers")


def _row(layer: str, kind: str, index: int, array: Array, same_as: str = "") -> Row:
    least, most, mean, not_finite = _figures(_pieces(array))
    return Row(layer, kind, index, tuple(array.shape), array.dtype.name, least, most, mean, not_finite, same_as)


def _pieces(array: Array) -> Iterator[Array]:
    flat = array.reshape(-1)
    return (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))


def _figures(pieces: Iterable[Array]) -> tuple[float | None, float | None, float | None, int]:
    least, most, total, count, not_finite = np.inf, -np.inf, 0.0, 0, 0
    for piece in pieces:
        finite = piece[np.isfinite(piece)]
        not_finite += piece.size - finite.size
        if finite.size:
            least, most = min(least, float(finite.min())), max(most, float(finite.max()))
            total += float(finite.sum(dtype=np.float64))
            count += finite.size
    if not count:
        return None, None, None, not_finite
    return least, most, total / count, not_finite


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
