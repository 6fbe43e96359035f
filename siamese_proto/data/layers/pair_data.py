"""The PairData layer: pairs and triplets drawn from labeled images while they are needed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from siamese_proto.data.bad_records import Reading
from siamese_proto.data.databases.datum import Size
from siamese_proto.data.images.class_choice import choose_classes, readable, warn_of_lone_images
from siamese_proto.data.images.image_check import ImageCheck, is_checked_later
from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.data.images.labeled_source import Kind, LabeledSource, Split
from siamese_proto.data.images.pair_list import open_pairs
from siamese_proto.data.layers.pair_batches import PairBatches, Rows
from siamese_proto.data.layers.source_layer import SourceLayer
from siamese_proto.data.sampling import GivenTuples, PairSampler, TripletSampler, TupleOrder, TupleSource
from siamese_proto.data.transform import read_transform
from siamese_proto.errors import DataError, GraphError, NetError
from siamese_proto.graph.ir import Arity, Shape
from siamese_proto.layers.base import Coverage, RunState, layer
from siamese_proto.layers.pair_labels import PairLabels, read_pair_labels
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

TupleKind = Literal["PAIR", "TRIPLET", "BALANCED"]
_OF_CLASSES = ("same_fraction", "classes", "exclude_classes", "images_per_class", "skip_per_class", "tuples")


@layer("PairData")
class PairData(SourceLayer):
    """Pairs or triplets drawn from labeled images, through `transform_param`, which treats a tuple's images alike.

    PAIR: () -> (N, C, H, W), (N, C, H, W), labels (N,), 1 for two images of one class; N is batch_size
    BALANCED: the same with 2 N rows: each of N anchors with an image of its class and then with one of another
    TRIPLET: () -> anchors, positives, negatives, (N, C, H, W) each
    A fourth top holds the classes, (N, 2 or 3). With fewer than three tops the images of a tuple are stacked on
    channels, as in a database of pairs; then come labels, or the classes of triplets. What tuple number i is depends
    on the seed and on i alone. The embedded digits, `source: "digits"`, give TRAIN and TEST images of their own.
    Not in BVLC Caffe.
    """

    reads = ("pair_data_param", "transform_param")
    source_kind = "source"
    source_hint = "check the path"

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.pair_data_param
        self.settings = settings
        self.source, self.batch_size, self.ahead = settings.source, settings.batch_size, settings.prefetch
        self.tuple = cast(TupleKind, schema.PairDataParameter.Tuple.Name(settings.tuple))
        self.images = read_source(settings, self.context.folder, "train" if self.phase == "TRAIN" else "test")
        self.pair_labels = _pair_labels(settings.pair_labels)
        self.tops = Arity(1, 4) if self.tuple == "TRIPLET" else Arity(2, 4)
        self.transform = read_transform(message.transform_param, self.phase)
        if not 0 <= settings.same_fraction <= 1:
            raise GraphError(
                f"same_fraction is {settings.same_fraction:g}; it must be from 0 to 1",
                field="pair_data_param.same_fraction",
            )
        if settings.pair_labels and not self.images.is_csv:
            raise GraphError(
                "pair_labels says what the labels of a CSV mean, but these pairs are drawn by class; remove it",
                field="pair_data_param.pair_labels",
            )
        if self.images.is_csv and (self.tuple != "PAIR" or self.top_count > 3):
            raise GraphError(
                "a CSV names pairs and no classes; write tuple: PAIR, and two or three tops",
                field="pair_data_param.tuple",
            )

    def tops_beside(self, first: Shape) -> Sequence[Shape | None]:
        in_tuple = 3 if self.tuple == "TRIPLET" else 2
        images = [first] * (in_tuple if self.top_count >= 3 else 1)
        labels: list[Shape] = [] if self.tuple == "TRIPLET" else [first[:1]]
        return [*images, *labels, (*first[:1], in_tuple)][: self.top_count]

    def shapes_of(self, size: Size) -> Sequence[Shape]:
        channels, height, width = self.transform.output_size(size)
        in_tuple = 3 if self.tuple == "TRIPLET" else 2
        rows = self.batch_size * (2 if self.tuple == "BALANCED" else 1)
        images: list[Shape] = [(rows, channels, height, width)] * in_tuple
        if self.top_count < 3:
            images = [(rows, in_tuple * channels, height, width)]
        labels: list[Shape] = [] if self.tuple == "TRIPLET" else [(rows,)]
        return [*images, *labels, (rows, in_tuple)][: self.top_count]

    def first_size(self) -> Size:
        path = self.locate()
        return _first_size(self.images, Path(path).stat().st_mtime_ns if path else 0)

    def size_by_settings(self) -> Size | None:
        if not all(self.images.new_size) or self.images.is_color is None:
            return None
        return (3 if self.images.is_color else 1, *self.images.new_size)

    def open_source(self, run: RunState) -> PairBatches:
        seed = self.settings.seed if self.settings.HasField("seed") else run.seed
        transformer = self.transformer(seed)
        images, pairs = self.open_images()
        reading = Reading.of(run, self.name)
        try:
            images, tuples, order = self._drawn(images, pairs, seed, reading.left_out)
        except NetError:
            images.close()
            raise
        check = ImageCheck(images, reading) if is_checked_later(images) else None
        return PairBatches(images, tuples, order, self.batch_size, transformer, self._rows(), reading, check)

    def coverage(self, most: int | None = None) -> Coverage | None:
        """The tuples of the source or of the fixed set; None where tuples are drawn without end."""
        if self.located() is None:
            return None
        tuples = len(self._named().labels) if self.images.is_csv else self.settings.tuples
        return Coverage(self.source or "digits", tuples, self.batch_size) if tuples else None

    def label_values(self, top: int) -> NDArray[Any] | None:
        in_csv = self.images.is_csv and self.located() is not None and top == min(self.top_count - 1, 2)
        return self._named().labels if in_csv else None

    def open_images(self) -> tuple[LabeledImages, GivenTuples | None]:
        """Open the images, and the pairs of a CSV."""
        return open_pairs(self.images, self.pair_labels) if self.images.is_csv else (self.images.open(), None)

    def _named(self) -> GivenTuples:
        """The pairs that a CSV names."""
        images, pairs = self.open_images()
        images.close()
        assert pairs is not None  # of a CSV
        return pairs

    def unused_fields(self) -> Sequence[str]:
        unused: tuple[str, ...] = _OF_CLASSES if self.images.is_csv else ()
        if self.tuple != "PAIR":
            unused = (*unused, "same_fraction")
        if not self.images.is_csv and not self.settings.tuples:
            unused = (*unused, "shuffle")
        return [f"pair_data_param.{name}" for name in unused if self.settings.HasField(name)]

    def describe(self) -> str:
        drawn = {"PAIR": "pairs", "TRIPLET": "triplets", "BALANCED": "balanced pairs"}[self.tuple]
        return f"{drawn} of {self.source or 'digits'}, batches of {self.batch_size}"

    def _drawn(
        self, images: LabeledImages, pairs: GivenTuples | None, seed: int, left_out: set[str] | None
    ) -> tuple[LabeledImages, TupleSource, TupleOrder]:
        """The images that are used, the tuples drawn from them, and the order these come in."""
        settings = self.settings
        if pairs is not None:
            pairs = pairs if is_checked_later(images) else pairs.of_images(readable(images, left_out))
            return images, pairs, TupleOrder(len(pairs.labels), shuffle=settings.shuffle, seed=seed)
        limits = {"per_class": settings.images_per_class, "skip": settings.skip_per_class}
        images = choose_classes(images, settings.classes, settings.exclude_classes, **limits)
        if not is_checked_later(images):
            images = images.selected(readable(images, left_out).nonzero()[0])
        warn_of_lone_images(images, self.name)
        order = TupleOrder(settings.tuples, shuffle=settings.shuffle, seed=seed)
        if self.tuple != "PAIR":
            return images, TripletSampler(images.labels, seed=seed), order
        fraction, count = settings.same_fraction, settings.tuples
        return images, PairSampler(images.labels, same_fraction=fraction, seed=seed, count=count), order

    def _rows(self) -> Rows:
        triplets = self.tuple == "TRIPLET"
        return Rows(
            balanced=self.tuple == "BALANCED",
            stacked=self.top_count < 3,
            labels=not triplets,
            classes=self.top_count == 4 or (triplets and self.top_count == 2),
            same_transform=self.settings.same_transform,
        )

    def locate(self) -> str:
        """Return the path of the source; "" for the embedded digits."""
        if not self.images.is_digits:
            if not self.source:
                raise self.missing("no source is given; write its path, or 'digits'")
            path: str = super().locate()
            return path
        self.check_batch_size()
        return ""


def read_source(settings: schema.PairDataParameter, folder: str | None, split: Split) -> LabeledSource:
    """Read the source of a pair_data_param. Raises GraphError for a size with only one side."""
    if (settings.new_height > 0) != (settings.new_width > 0):
        raise GraphError("new_height and new_width must be given together", field="pair_data_param")
    return LabeledSource(
        settings.source,
        cast(Kind, schema.PairDataParameter.Kind.Name(settings.kind)),
        labels=settings.labels,
        root_folder=settings.root_folder,
        folder=folder,
        split=split,
        is_color=settings.is_color if settings.HasField("is_color") else None,
        new_size=(settings.new_height, settings.new_width),
    )


def _pair_labels(text: str) -> PairLabels | None:
    try:
        return read_pair_labels(text) if text else None
    except DataError as problem:
        raise GraphError(problem.message, field="pair_data_param.pair_labels") from None


@functools.lru_cache(maxsize=64)
def _first_size(source: LabeledSource, stamp: int) -> Size:
    """(C, H, W) of the first image, read once a process: several graphs are made of one file."""
    with open_pairs(source)[0] if source.is_csv else source.open() as images:
        return images.shape
