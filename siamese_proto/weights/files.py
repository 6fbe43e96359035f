"""What the readers of all formats say of a file that is not what it should be."""

from __future__ import annotations

import os

from siamese_proto.errors import WeightsError, quoted

Path = str | os.PathLike[str]

# What h5py and torch raise for damaged files, found by changing bytes at random.
DAMAGED = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError)


def problem(file: str, text: str, *, layer: str | None = None) -> WeightsError:
    """An error about a weights file; such files have no lines, so the path alone says where."""
    where = f"layer {quoted(layer)}: " if layer is not None else ""
    return WeightsError(f"{file}: {where}{text}")
