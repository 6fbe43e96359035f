"""Pairs that a file names: a CSV of `image1,image2,label`."""

from __future__ import annotations

import csv
import math
import os
from typing import TYPE_CHECKING

from siamese_proto.data.image_stores import FileStore, Form
from siamese_proto.data.labelled import LabelledImages, listed_paths
from siamese_proto.data.pair_sampling import GivenTuples
from siamese_proto.errors import DataError, quoted
from siamese_proto.layers.pair_labels import PairLabels

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[str, str, float]


def open_pairs(
    source: str,
    *,
    root_folder: str = "",
    folder: str | None = None,
    is_color: bool | None = None,
    new_size: tuple[int, int] = (0, 0),
    pair_labels: PairLabels | None = None,
) -> tuple[LabelledImages, GivenTuples]:
    """The images that a CSV of `image1,image2,label` names, each once, and the pairs as indices into them.

    A first line without a number for a label is a header. Label 1 means alike and 0 different; `pair_labels` brings
    other numbers to these two. Without it they are delivered as they are: a measured likeness, say. Paths are looked
    for as those of a list are (`open_labelled`); the
    images have class -1, as nobody says theirs. Raises DataError with the line that is not such a pair.
    """
    import numpy

    rows = read_rows(source)
    indices: dict[str, int] = {}
    pairs = [[indices.setdefault(name, len(indices)) for name in row[:2]] for row in rows]
    paths = listed_paths(source, root_folder, list(indices), folder)
    store = FileStore(source, paths, numpy.full(len(paths), -1, numpy.int64), {}, Form(is_color, new_size))
    labels = numpy.array([label for _, _, label in rows], numpy.float32)
    if pair_labels is not None:
        labels = pair_labels.are_same(labels, quoted(source)).astype(numpy.float32)
    return LabelledImages(store), GivenTuples(numpy.array(pairs, numpy.int64), labels)


def read_rows(source: str) -> Sequence[Row]:
    """The two names and the label of every pair of a CSV; DataError with the line that is not such a pair."""
    rows: list[Row] = []
    if os.path.exists(source) and not os.path.isfile(source):
        raise DataError(f"{quoted(source)} is no file; check the path")
    try:
        with open(source, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            lines = csv.reader(file, skipinitialspace=True)
            for cells in lines:
                if any(cell.strip() for cell in cells):
                    row = _row(cells)
                    if row is not None:
                        rows.append(row)
                    elif rows or lines.line_num > 1 or len(cells) != 3:
                        raise DataError(
                            f"{source}:{lines.line_num}: {quoted(','.join(cells))} is not 'image1,image2,label' with a "
                            "number as label"
                        )
    except OSError as error:
        raise DataError(f"{quoted(source)} cannot be read: {error.strerror}; check the path") from error
    except csv.Error as error:
        raise DataError(f"{quoted(source)} is not a CSV file ({error})") from error
    if not rows:
        raise DataError(f"{quoted(source)} names no pair; write lines of image1,image2,label")
    return rows


def _row(cells: Sequence[str]) -> Row | None:
    try:
        first, second, label = (cell.strip() for cell in cells)
        value = float(label)
    except ValueError:
        return None
    return (first, second, value) if first and second and math.isfinite(value) else None
