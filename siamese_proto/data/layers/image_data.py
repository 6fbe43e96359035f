"""The ImageData layer: batches of image files that a list names."""

from __future__ import annotations

import functools
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siamese_proto.data.bad_records import Reading, first_usable
from siamese_proto.data.databases.datum import Decoding, Size, of_image, pixels_of, size_of
from siamese_proto.data.images.decode import read_file, resize
from siamese_proto.data.images.image_list import Entry, read_list, several_labels
from siamese_proto.data.layers.source_layer import SourceLayer
from siamese_proto.data.transform import Transformer, read_transform
from siamese_proto.errors import DataError, GraphError, quoted
from siamese_proto.files import control_hint, find_path
from siamese_proto.graph.ir import exactly
from siamese_proto.layers.base import Coverage, RunState, layer
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from siamese_proto.data.databases.datum import Pixels
    from siamese_proto.data.transform import Floats

_log = logging.getLogger(__name__)
_OUT_OF_USE = ("scale", "mean_file", "crop_size", "mirror")


@layer("ImageData")
class ImageData(SourceLayer):
    """Image files named in a list, a line `path label` each, through `transform_param`.

    () -> (batch_size, C, H, W), labels (batch_size,). Colours are blue, green, red. Caffe: image_data_layer.cpp
    `shuffle` and `rand_skip` depend on the seed alone, so that two lists of as many lines stay in step. With
    batch_size 1 images may differ in height and width.
    """

    tops = exactly(2)
    reads = ("image_data_param", "transform_param")
    source_kind = "list"
    source_hint = "write a file with 'path label' a line"

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.image_data_param
        self.source = settings.source
        self.batch_size = settings.batch_size
        self.shuffle = settings.shuffle
        self.rand_skip = settings.rand_skip
        self.root = settings.root_folder
        self.decoding = Decoding(force_color=settings.is_color, force_gray=not settings.is_color)
        self.new_size = (settings.new_height, settings.new_width)
        if (self.new_size[0] > 0) != (self.new_size[1] > 0):
            raise GraphError("new_height and new_width must be given together", field="image_data_param")
        self.transform = read_transform(message.transform_param, self.phase)
        self.out_of_use = tuple(f"image_data_param.{name}" for name in _OUT_OF_USE if settings.HasField(name))

    def first_size(self) -> Size:
        size = first_usable(self.locate(), self._size_of)
        assert size is not None  # lists without entries are refused
        return size

    def size_by_settings(self) -> Size | None:
        crop = self.transform.crop_size
        if not self.new_size[0] and not crop:
            return None
        return (3 if self.decoding.force_color else 1, *(self.new_size if self.new_size[0] else (crop, crop)))

    def open_source(self, run: RunState) -> ImageBatches:
        entries = self.locate()
        transformer = self.transformer(run.seed, each_its_size=self.batch_size == 1)
        skipped = _draw_skip(self.rand_skip, run.seed) if run.rand_skip else 0
        if skipped >= len(entries):
            raise DataError(
                f"rand_skip passes over {skipped} lines, but list {quoted(self.source)} has {len(entries)};"
                " write a smaller one",
                field="image_data_param.rand_skip",
            )
        return ImageBatches(
            entries,
            self.batch_size,
            self.new_size,
            self.decoding,
            transformer,
            Reading.of(run, self.name),
            shuffle=self.shuffle,
            seed=run.seed,
            skipped=skipped,
        )

    def unused_fields(self) -> Sequence[str]:
        return self.out_of_use

    def describe(self) -> str:
        return f"images of {self.source}, batches of {self.batch_size}"

    def coverage(self, most: int | None = None) -> Coverage | None:
        entries = self.located()
        return None if entries is None else Coverage(self.source, len(entries), self.batch_size)

    def label_values(self, top: int) -> NDArray[Any] | None:
        import numpy

        entries = self.located() if top == 1 else None
        return None if entries is None else numpy.array([label for _, label in entries])

    def _size_of(self, entry: Entry) -> Size:
        name, data = entry[0], read_file(entry[0])
        with of_image(name):
            channels, height, width = size_of(b"", schema.Datum(data=data, encoded=True), self.decoding)
        return (channels, *self.new_size) if self.new_size[0] else (channels, height, width)

    def locate(self) -> Sequence[Entry]:
        """Return the images of the list, whose paths are relative to the working directory or the net's folder."""
        source, folder = super().locate(), self.context.folder
        lines = read_list(source, Path(source).stat().st_mtime_ns)
        first = self.root + lines[0][0]
        if find_path(first, folder) is None:
            raise self.missing(
                f"image {quoted(first)}, the first of list {quoted(self.source)}, is not there{control_hint(first)}; "
                f"{several_labels(first) or 'check root_folder'}",
                "root_folder",
            )
        # If the first image exists, so do the others: lists are long, so images are not looked for one by one.
        prefix = self.root if folder is None or Path(first).exists() else os.path.join(folder, self.root)
        return [(prefix + name, label) for name, label in lines]


@dataclass(frozen=True)
class ImageBatches:
    """The source of an ImageData layer's feeder; see `feeder.Source`."""

    entries: Sequence[Entry]
    batch_size: int
    new_size: tuple[int, int]  # height and width, 0: as they are
    decoding: Decoding
    transformer: Transformer
    reading: Reading
    shuffle: bool
    seed: int
    skipped: int

    def batches(self, first: int) -> Iterator[Callable[[], Sequence[Floats]]]:
        """Data (N, C, H, W) and labels (N,), both float32."""
        entries = self._endless(self.skipped + first * self.batch_size)
        for number in itertools.count(first):
            batch = list(itertools.islice(entries, self.batch_size))
            yield functools.partial(self._batch, batch, number * self.batch_size)

    def _batch(self, entries: Sequence[Entry], position: int) -> Sequence[Floats]:
        import numpy

        read = self.reading.all(entries, self._image, self._spare)
        labels = numpy.array([label for _, label in read], numpy.float32)
        return self.transformer.batch([pixels for pixels, _ in read], position), labels

    def record(self, batch: int, row: int) -> str:
        """Where a row comes from."""
        return f"image {quoted(next(self._endless(self.skipped + batch * self.batch_size + row))[0])}"

    def close(self) -> None:
        """Nothing is held."""

    def _endless(self, position: int) -> Iterator[Entry]:
        begin, position = divmod(position, len(self.entries))
        for round_number in itertools.count(begin):
            for index in self._order(round_number)[position:]:
                yield self.entries[index]
            position = 0
            _log.info("Restarting data prefetching from start.")

    def _order(self, round_number: int) -> Any:
        import numpy

        if not self.shuffle:
            return numpy.arange(len(self.entries))
        return numpy.random.default_rng([self.seed, round_number]).permutation(len(self.entries))

    def _spare(self) -> tuple[Pixels, int]:
        """The first image that can be used."""
        found = first_usable(self.entries, self._image)
        assert found is not None  # lists without entries are refused
        return found

    def _image(self, entry: Entry) -> tuple[Pixels, int]:
        name, label = entry
        datum = schema.Datum(data=read_file(name), encoded=True)
        with of_image(name):
            pixels = pixels_of(b"", datum, self.decoding)
        if self.new_size[0] and pixels.shape[1:] != self.new_size:
            pixels = resize(pixels, self.new_size)
        self.transformer.check(pixels, f"image {quoted(name)}")
        return pixels, label


def _draw_skip(rand_skip: int, seed: int) -> int:
    import numpy

    return int(numpy.random.default_rng(seed).integers(rand_skip)) if rand_skip else 0
