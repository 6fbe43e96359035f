"""Pairs of images to judge a net on: a database of pairs, a CSV of pairs, or pairs drawn from labelled images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy

from siamese_proto.data.databases.datum import Size
from siamese_proto.data.images.class_choice import choose_classes
from siamese_proto.data.images.image_stores import FileStore, Form, ImageStore
from siamese_proto.data.images.labelled import LabelledImages, guess_kind, is_digits, open_labelled
from siamese_proto.data.images.pair_lines import SUFFIXES
from siamese_proto.data.images.pair_list import open_pairs
from siamese_proto.data.sampling import distinct_pairs
from siamese_proto.errors import DataError, quoted
from siamese_proto.evaluation.pair_counts import COUNT
from siamese_proto.evaluation.preprocess import Preparation
from siamese_proto.layers.pair_labels import PairLabels, listed, mapping_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from siamese_proto.data.databases.datum import Pixels
    from siamese_proto.data.images.image_stores import Labels

    Rows = NDArray[numpy.intp]


@dataclass(frozen=True)
class PairImages:
    """Pairs of images: the first of each from `images[0]`, the second from `images[1]`, which may be the same."""

    images: tuple[LabelledImages, LabelledImages]
    rows: tuple[Rows, Rows]  # (N,) each
    same: NDArray[numpy.bool_]  # (N,)
    told: str  # what they are, for people

    def __len__(self) -> int:
        return len(self.same)

    def names(self, pair: int) -> tuple[str, str]:
        """What the two images are called."""
        first, second = (images.names[int(rows[pair])] for images, rows in zip(self.images, self.rows, strict=True))
        return first, second

    def numbers(self, *, ordered: bool) -> NDArray[numpy.int64]:
        """A number for each pair, (N,), the same for copies of one; unless `ordered`, either image may come first."""
        sides: list[NDArray[Any]] = list(self.rows)
        if self.images[0] is not self.images[1]:  # a record each: they are the same where their pixels are
            sides = [
                numpy.array([blake2b(images.image(int(row)).tobytes(), digest_size=8).hexdigest() for row in rows])
                for images, rows in zip(self.images, self.rows, strict=True)
            ]
        pairs = numpy.stack(sides, axis=1)
        found = numpy.unique(pairs if ordered else numpy.sort(pairs, axis=1), axis=0, return_inverse=True)[1]
        numbers: NDArray[numpy.int64] = found.reshape(-1)
        return numbers

    def close(self) -> None:
        """Give files back."""
        for images in self.images:
            images.close()


def labelled_images(
    source: str, preparation: Preparation, *, labels: str = "", root_folder: str = "", classes: str = ""
) -> LabelledImages:
    """Open labelled images as the net takes them; DataError where there are none. See `data.labelled.open_labelled`."""
    images = open_labelled(
        source, labels=labels, root_folder=root_folder, is_color=preparation.is_color, new_size=preparation.before_crop
    )
    if not len(images):
        images.close()
        raise DataError(f"{quoted(source)} has no images")
    return choose_classes(images, classes) if classes else images


def image_files(paths: Sequence[str], preparation: Preparation) -> LabelledImages:
    """Image files by name, without classes (label -1); of folders all images below them."""
    found: list[str] = []
    for path in paths:
        found += _files_below(path) if os.path.isdir(path) else [path]
    if not found:
        raise DataError(
            f"there are no images in {', '.join(map(quoted, paths))}; known are {', '.join(sorted(SUFFIXES))}"
        )
    form = Form(preparation.is_color, preparation.before_crop)
    unknown = numpy.full(len(found), -1, numpy.int64)
    return LabelledImages(FileStore(", ".join(paths), found, unknown, {}, form, "check the path"))


def _files_below(folder: str) -> list[str]:
    return [
        os.path.join(place, name)
        for place, folders, names in sorted(os.walk(folder, followlinks=True))
        if not any(part.startswith(".") for part in os.path.relpath(place, folder).split(os.sep) if part != ".")
        for name in sorted(names)
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
    ]


def open_pair_images(
    source: str,
    preparation: Preparation,
    *,
    one_is_same: bool = True,
    pair_labels: PairLabels | None = None,
    count: int | None = None,
    seed: int = 0,
    same_fraction: float = 0.5,
    labels: str = "",
    root_folder: str = "",
    classes: str = "",
) -> PairImages:
    """Open pairs to judge: those of a database or a CSV, or different ones drawn from labelled images.

    `count` pairs at most are taken, by chance from `seed`; None: all of a database or a CSV, 2000 of labelled images.
    A database holds pairs where its records have twice the channels that the net takes. Label 1 means "same", unless
    `one_is_same` is False, or whatever `pair_labels` says. Raises DataError where there are none.
    """
    meaning = f"label {int(one_is_same)} is same" if pair_labels is None else f"labels {pair_labels.text}"
    told = f"pairs of {source}, {meaning}"
    kind = "DIGITS" if is_digits(source) and not os.path.exists(source) else guess_kind(source)
    if kind == "CSV":
        images, tuples = open_pairs(
            source, root_folder=root_folder, is_color=preparation.is_color, new_size=preparation.before_crop
        )
        rows = tuples.tuples
        same = _same(tuples.labels, source, pair_labels, one_is_same=one_is_same)
        return _some(PairImages((images, images), (rows[:, 0], rows[:, 1]), same, told), count, seed)
    if kind == "DATABASE":
        records = open_labelled(source, "DATABASE", new_size=preparation.before_crop)
        if records.shape[0] == 2 * preparation.size[0]:
            every = numpy.arange(len(records))
            halves = tuple(LabelledImages(_Half(records, half)) for half in (0, 1))
            same = _same(records.labels, source, pair_labels, one_is_same=one_is_same)
            return _some(PairImages((halves[0], halves[1]), (every, every), same, told), count, seed)
        records.close()
    images = labelled_images(source, preparation, labels=labels, root_folder=root_folder, classes=classes)
    drawn, same = distinct_pairs(images.labels, count or COUNT, same_fraction=same_fraction, seed=seed)
    drawn_from = f"pairs drawn from the {len(images)} images of {source}, none twice, seed {seed}"
    if count is not None and len(drawn) < count:
        drawn_from += f"; there are no {count}"
    return PairImages((images, images), (drawn[:, 0], drawn[:, 1]), same, drawn_from)


def _some(pairs: PairImages, count: int | None, seed: int) -> PairImages:
    """`count` of the pairs, drawn from the seed; all where there are not more."""
    if count is None or count >= len(pairs):
        return pairs
    chosen = numpy.sort(numpy.random.default_rng(seed).permutation(len(pairs))[:count])
    first, second = pairs.rows
    told = f"{count} drawn from the {len(pairs)} {pairs.told}, seed {seed}"
    return PairImages(pairs.images, (first[chosen], second[chosen]), pairs.same[chosen], told)


def _same(
    labels: NDArray[numpy.integer] | NDArray[numpy.float32],
    source: str,
    pair_labels: PairLabels | None,
    *,
    one_is_same: bool,
) -> NDArray[numpy.bool_]:
    """Which pairs are of one class; DataError for labels that do not say it."""
    if pair_labels is not None:
        return pair_labels.are_same(labels, quoted(source))
    others = labels[(labels != 0) & (labels != 1)]
    if len(others):
        raise DataError(
            f"{len(others)} labels of {quoted(source)} are neither 0 nor 1: {listed(others)}; say which mean the same "
            f"with --pair-labels, for example {mapping_for(labels)} (a labelled database is judged with --labelled)"
        )
    same: NDArray[numpy.bool_] = (labels == 1) == one_is_same
    return same


class _Half(ImageStore):
    """One image of each record of a database of pairs."""

    def __init__(self, records: LabelledImages, half: int) -> None:
        super().__init__(records.source, {})
        self._records = records
        self._half = half

    def labels(self) -> Labels:
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
