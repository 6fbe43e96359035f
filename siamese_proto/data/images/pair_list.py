"""Pairs that a file names: a CSV of `image1,image2,label`, or another form of `pair_lines`."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from siamese_proto.data.images.image_stores import FileStore
from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.data.images.labeled_source import LabeledSource, listed_paths
from siamese_proto.data.images.pair_lines import SUFFIXES, Row, read_pairs
from siamese_proto.data.sampling import GivenTuples
from siamese_proto.errors import DataError, quoted
from siamese_proto.layers.pair_labels import PairLabels

if TYPE_CHECKING:
    from collections.abc import Sequence


def open_pairs(source: LabeledSource, pair_labels: PairLabels | None = None) -> tuple[LabeledImages, GivenTuples]:
    """Open a CSV of `image1,image2,label`, or a file with spaces or tabs instead of commas, or LFW's `pairs.txt`.

    A first line without a number as label is a header. Label 1 means the same class and 0 different classes;
    `pair_labels` maps other numbers to these two. Without it, labels are returned as they are (as similarities).

    Returns:
        The images, each once and with class -1, as their classes are unknown; and the pairs as indices of images.

    Raises:
        DataError: a line is not such a pair.
    """
    import numpy

    path = source.find() or source.path
    rows, numbered = read_pairs(path)
    indices: dict[str, int] = {}
    pairs = [[indices.setdefault(name, len(indices)) for name in row[:2]] for row in rows]
    paths = _paths(path, source.root_folder, list(indices), source.folder, numbered=numbered)
    store = FileStore(path, paths, numpy.full(len(paths), -1, numpy.int64), {}, source.form)
    labels = numpy.array([label for _, _, label in rows], numpy.float32)
    if pair_labels is not None:
        labels = pair_labels.are_same(labels, quoted(path)).astype(numpy.float32)
    return LabeledImages(store), GivenTuples(numpy.array(pairs, numpy.int64), labels)


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
