"""Pairs of images for evaluation: from a database of pairs, a CSV of pairs, or drawn from labeled images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy
from numpy.typing import NDArray

from siamese_proto.data.databases.datum import Size
from siamese_proto.data.images.image_stores import FileStore, Form, ImageStore
from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.data.images.labeled_source import LabeledSource, guess_kind, is_digits
from siamese_proto.data.images.pair_lines import SUFFIXES
from siamese_proto.data.images.pair_list import open_pairs
from siamese_proto.data.sampling import distinct_pairs
from siamese_proto.errors import DataError, quoted
from siamese_proto.evaluation.preprocess import Pixels, Preprocessing
from siamese_proto.layers.pair_labels import PairLabels, listed, mapping_for

Rows = NDArray[numpy.intp]
DEFAULT_COUNT = 2000  # pairs from a source without an end


@dataclass(frozen=True)
class PairImages:
    """Pairs of images: the first of each from `images[0]`, the second from `images[1]`, which may be the same."""

    images: tuple[LabeledImages, LabeledImages]
    rows: tuple[Rows, Rows]  # (N,) each
    same: NDArray[numpy.bool_]  # (N,)
    description: str

    def __len__(self) -> int:
        return len(self.same)

    def names(self, pair: int) -> tuple[str, str]:
        """Return the names of the two images of a pair."""
        first, second = (images.names[int(rows[pair])] for images, rows in zip(self.images, self.rows, strict=True))
        return first, second

    def numbers(self, *, ordered: bool) -> NDArray[numpy.int64]:
        """Number the pairs, (N,): copies have the same number. Unless `ordered`, either image may come first."""
        sides: list[NDArray[Any]] = list(self.rows)
        if self.images[0] is not self.images[1]:  # a record for each pair, so compare pixels
            sides = [
                numpy.array([blake2b(images.image(int(row)).tobytes(), digest_size=8).hexdigest() for row in rows])
                for images, rows in zip(self.images, self.rows, strict=True)
            ]
        pairs = numpy.stack(sides, axis=1)
        numbers = numpy.unique(pairs if ordered else numpy.sort(pairs, axis=1), axis=0, return_inverse=True)[1]
        return numbers.reshape(-1).astype(numpy.int64)

    def sample(self, count: int | None, seed: int) -> PairImages:
        """Draw `count` of the pairs; returns all pairs if there are not more."""
        if count is None or count >= len(self):
            return self
        chosen = numpy.sort(numpy.random.default_rng(seed).permutation(len(self))[:count])
        rows = self.rows[0][chosen], self.rows[1][chosen]
        description = f"{count} drawn from the {len(self)} {self.description}, seed {seed}"
        return replace(self, rows=rows, same=self.same[chosen], description=description)

    def close(self) -> None:
        """Close the files."""
        for images in self.images:
            images.close()


def labeled_images(source: LabeledSource, preprocessing: Preprocessing) -> LabeledImages:
    """Open labeled images in the size and color of the net.

    Raises:
        DataError: the source is not one of labeled images, or it has none.
    """
    images = _in_form(source, preprocessing).open()
    if not len(images):
        images.close()
        raise DataError(f"{quoted(source.path)} has no images")
    return images


def _in_form(source: LabeledSource, preprocessing: Preprocessing) -> LabeledSource:
    return replace(source, is_color=preprocessing.is_color, new_size=preprocessing.before_crop)


def image_files(paths: Sequence[str], preprocessing: Preprocessing) -> LabeledImages:
    """Open image files, and all images in folders and their subfolders, without classes (label -1)."""
    files: list[str] = []
    for path in paths:
        files += _files_below(path) if os.path.isdir(path) else [path]
    if not files:
        raise DataError(
            f"no images in {', '.join(map(quoted, paths))}: expected files that end in {', '.join(sorted(SUFFIXES))}"
        )
    form = Form(preprocessing.is_color, preprocessing.before_crop)
    unknown = numpy.full(len(files), -1, numpy.int64)
    return LabeledImages(FileStore(", ".join(paths), files, unknown, {}, form, "check the path"))


def is_image_name(name: str) -> bool:
    """Return whether a file name is that of an image; hidden files are not."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not os.path.basename(name).startswith(".")


def _files_below(folder: str) -> list[str]:
    return [
        os.path.join(place, name)
        for place, _, names in sorted(os.walk(folder, followlinks=True))
        if not any(part.startswith(".") for part in os.path.relpath(place, folder).split(os.sep) if part != ".")
        for name in sorted(names)
        if is_image_name(name)
    ]


def open_pair_images(
    source: LabeledSource,
    preprocessing: Preprocessing,
    *,
    one_is_same: bool = True,
    pair_labels: PairLabels | None = None,
    count: int | None = None,
    seed: int = 0,
    same_fraction: float = 0.5,
) -> PairImages:
    """Open pairs of images.

    Args:
        source: A CSV of pairs, a database of pairs (whose records have twice the channels of the net's input), or
            labeled images to draw different pairs from.
        preprocessing: Of the net.
        one_is_same: Whether label 1 means "same"; else label 0 does.
        pair_labels: What other labels mean.
        count: Number of pairs at most, drawn at random. None: all pairs of a database or a CSV, 2000 of labeled images.
        seed: Of the pairs that are drawn.
        same_fraction: Of the pairs drawn from labeled images.

    Raises:
        DataError: the source cannot be read or has no pairs.
    """
    meaning = f"label {int(one_is_same)} is same" if pair_labels is None else f"labels {pair_labels.text}"
    path = source.path
    description = f"pairs of {path}, {meaning}"
    kind = "DIGITS" if is_digits(path) and not os.path.exists(path) else guess_kind(path)
    if kind == "CSV":
        images, tuples = open_pairs(_in_form(source, preprocessing))
        same = _same(tuples.labels, path, pair_labels, one_is_same=one_is_same)
        rows = tuples.tuples[:, 0], tuples.tuples[:, 1]
        return PairImages((images, images), rows, same, description).sample(count, seed)
    if kind == "DATABASE":
        records = LabeledSource(path, "DATABASE", new_size=preprocessing.before_crop).open()
        if records.shape[0] == 2 * preprocessing.size[0]:
            every = numpy.arange(len(records))
            halves = LabeledImages(_Half(records, 0)), LabeledImages(_Half(records, 1))
            same = _same(records.labels, path, pair_labels, one_is_same=one_is_same)
            return PairImages(halves, (every, every), same, description).sample(count, seed)
        records.close()
    images = labeled_images(source, preprocessing)
    drawn, same = distinct_pairs(images.labels, count or DEFAULT_COUNT, same_fraction=same_fraction, seed=seed)
    description = f"pairs drawn from the {len(images)} images of {path}, none twice, seed {seed}"
    if count is not None and len(drawn) < count:
        description += f"; there are fewer than {count}"
    return PairImages((images, images), (drawn[:, 0], drawn[:, 1]), same, description)


def _same(
    labels: NDArray[numpy.integer] | NDArray[numpy.float32],
    source: str,
    pair_labels: PairLabels | None,
    *,
    one_is_same: bool,
) -> NDArray[numpy.bool_]:
    """Return which pairs are of one class; DataError for labels without a meaning."""
    if pair_labels is not None:
        return pair_labels.are_same(labels, quoted(source))
    others = labels[(labels != 0) & (labels != 1)]
    if len(others):
        raise DataError(
            f"{len(others)} labels of {quoted(source)} are neither 0 nor 1: {listed(others)}; specify which mean the "
            f"same with --pair-labels, for example {mapping_for(labels)} (for a labeled database use --labelled)"
        )
    same: NDArray[numpy.bool_] = (labels == 1) == one_is_same
    return same


class _Half(ImageStore):
    """One image of each record of a database of pairs."""

    def __init__(self, records: LabeledImages, half: int) -> None:
        super().__init__(records.source, {})
        self._records = records
        self._half = half

    def labels(self) -> NDArray[numpy.int64]:
        return self._records.labels

    def names(self) -> Sequence[str]:
        return [f"{name}, {('first', 'second')[self._half]} image" for name in self._records.names]

    @property
    def size(self) -> Size:
        channels, height, width = self._records.shape
        return channels // 2, height, width

    def read(self, row: int) -> Pixels:
        pixels = self._records.image(row)
        channels = len(pixels) // 2
        return pixels[self._half * channels :][:channels]

    def check(self, row: int) -> None:
        self._records.image(row)

    def close(self) -> None:
        self._records.close()
