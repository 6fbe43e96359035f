"""Pairs that a file names: a CSV of `image1,image2,label`, or another form of `pair_lines`."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from siamese_proto.data.images.image_stores import FileStore, Form
from siamese_proto.data.images.labelled import LabelledImages, listed_paths
from siamese_proto.data.images.pair_lines import SUFFIXES, Row, read_pairs
from siamese_proto.data.sampling import GivenTuples
from siamese_proto.errors import DataError, quoted
from siamese_proto.layers.pair_labels import PairLabels

if TYPE_CHECKING:
    from collections.abc import Sequence


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

    The words may have spaces or tabs between them, and the file may be in the form of LFW's `pairs.txt`.
    A first line without a number for a label is a header. Label 1 means alike and 0 different; `pair_labels` brings
    other numbers to these two. Without it they are delivered as they are: a measured likeness, say. Paths are looked
    for as those of a list are (`open_labelled`); the
    images have class -1, as nobody says theirs. Raises DataError with the line that is not such a pair.
    """
    import numpy

    rows, numbered = read_pairs(source)
    indices: dict[str, int] = {}
    pairs = [[indices.setdefault(name, len(indices)) for name in row[:2]] for row in rows]
    paths = _paths(source, root_folder, list(indices), folder, numbered=numbered)
    store = FileStore(source, paths, numpy.full(len(paths), -1, numpy.int64), {}, Form(is_color, new_size))
    labels = numpy.array([label for _, _, label in rows], numpy.float32)
    if pair_labels is not None:
        labels = pair_labels.are_same(labels, quoted(source)).astype(numpy.float32)
    return LabelledImages(store), GivenTuples(numpy.array(pairs, numpy.int64), labels)


def read_rows(source: str) -> Sequence[Row]:
    """The two names and the label of every pair of a file; DataError with the line that is not such a pair."""
    return read_pairs(source).rows


def _paths(source: str, root: str, names: Sequence[str], folder: str | None, *, numbered: bool) -> list[str]:
    """Where the images are; those of LFW have the suffix that the first one is found with."""
    if numbered:
        for suffix in sorted(SUFFIXES):
            others = [os.path.splitext(name)[0] + suffix for name in names]
            with contextlib.suppress(DataError):
                return listed_paths(source, root, others, folder)
    return listed_paths(source, root, names, folder)
