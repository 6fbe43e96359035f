"""From tuples of images to the batches of a PairData layer."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from siamese_proto.data.bad_records import BadRecordError, Reading, first_usable
from siamese_proto.data.images.image_check import ImageCheck
from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.data.sampling import TupleOrder, TupleSource
from siamese_proto.data.transform import Transformer, draw_choices
from siamese_proto.errors import DataError, quoted

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from siamese_proto.data.databases.datum import Pixels
    from siamese_proto.data.sampling import Numbers
    from siamese_proto.data.transform import Floats


@dataclass(frozen=True)
class Rows:
    """What the rows of a batch are made of."""

    balanced: bool = False  # the two pairs that a triplet makes, in place of its three images
    stacked: bool = False  # the images of a tuple on the channels of one top, in place of a top each
    labels: bool = True
    classes: bool = False
    same_transform: bool = True  # one crop and one mirror for all images of a tuple


@dataclass(frozen=True)
class PairBatches:
    """The source of a PairData layer's feeder; see `feeder.Source`."""

    images: LabeledImages
    tuples: TupleSource
    order: TupleOrder
    batch_size: int
    transformer: Transformer
    rows: Rows
    reading: Reading
    check: ImageCheck | None = None  # of the images that were not read beforehand

    def batches(self, first: int) -> Iterator[Sequence[Floats] | Callable[[], Sequence[Floats]]]:
        """The tops of batch number `first` and of those after it, all float32."""
        if self.check is not None:
            self.check.start()
        for number in itertools.count(first):
            yield self.batch(number) if self.images.in_memory else functools.partial(self.batch, number)

    def batch(self, number: int) -> Sequence[Floats]:
        """One batch: images, and labels and classes where they are wanted.

        Where bad images are left out, the next tuple of the batch that can be read takes the place of one that cannot.
        """
        import numpy

        tuples, labels = self._drawn(number * self.batch_size + numpy.arange(self.batch_size))
        try:
            return self._tops(tuples, labels, number)
        except DataError:
            if self.reading.left_out is None:
                raise
        usable = self.reading.all(list(zip(tuples, labels, strict=True)), self._usable, self._spare)
        tuples, labels = (numpy.stack(parts) for parts in zip(*usable, strict=True))
        return self._tops(tuples, labels, number)

    def _drawn(self, positions: Numbers) -> tuple[Numbers, Floats]:
        """The tuples at these positions of the stream, (n, k), and their labels, (n,)."""
        return self.tuples.draw(self.order.numbers(positions))

    def _usable(self, item: tuple[Numbers, Any]) -> tuple[Numbers, Any]:
        """A tuple with its label, as it is; BadRecordError where one of its images cannot be used."""
        for index in item[0].tolist():
            name = self.images.names[index]
            try:
                self.transformer.check(self.images.image(index), f"image {quoted(name)}")
            except DataError as error:
                raise BadRecordError(name, str(error)) from error
        return item

    def _spare(self) -> tuple[Numbers, Any]:
        """The first tuple of the stream that can be used, for a batch in which none can."""
        import numpy

        tuples = (
            (tuples[0], labels[0])
            for tuples, labels in (self._drawn(numpy.array([number])) for number in itertools.count())
        )
        found = first_usable(tuples, self._usable)
        assert found is not None  # a stream does not end
        return found

    def _tops(self, tuples: Numbers, labels: Floats, number: int) -> Sequence[Floats]:
        import numpy

        if self.rows.balanced:
            tuples = tuples[:, [0, 1, 0, 2]].reshape(-1, 2)  # (2 N, 2)
            labels = numpy.tile(numpy.array([1, 0], numpy.float32), self.batch_size)
        tops = self._pixels(tuples, number)
        if self.rows.labels:
            tops.append(labels)
        if self.rows.classes:
            tops.append(self.images.labels[tuples].astype(numpy.float32))
        return tops

    def close(self) -> None:
        """Give files back."""
        if self.check is not None:
            self.check.stop()
        self.images.close()

    def _pixels(self, tuples: Numbers, number: int) -> list[Floats]:
        """One stacked array, or one array for each image of a tuple."""
        rows, width = tuples.shape
        choices = self._choices(number, rows, width)
        if self.rows.stacked:
            values = self.transformer.apply(self._read(tuples.ravel()), choices)  # (rows k, C, H, W)
            return [values.reshape(rows, -1, *values.shape[2:])]
        if choices is not None:
            choices = choices.reshape(rows, width, -1).swapaxes(0, 1).reshape(rows * width, -1)
        values = self.transformer.apply(self._read(tuples.T.ravel()), choices)  # (k rows, C, H, W)
        return list(values.reshape(width, rows, *values.shape[1:]))

    def _choices(self, number: int, rows: int, width: int) -> NDArray[numpy.uint64] | None:
        """What chance does to each image, row by row, (rows k, 4)."""
        import numpy

        if not self.transformer.settings.random:
            return None
        if self.rows.same_transform:
            drawn = draw_choices(self.transformer.seed, number * self.batch_size, self.batch_size)
            return numpy.repeat(drawn, rows // self.batch_size * width, axis=0)
        return draw_choices(self.transformer.seed, number * rows * width, rows * width)

    def _read(self, indices: Numbers) -> Sequence[Pixels] | Pixels:
        import numpy

        if self.images.in_memory:
            return self.images.images(indices)
        once, places = numpy.unique(indices, return_inverse=True)  # an image may be in several tuples
        read = self.images.images(once)
        for index, image in zip(once.tolist(), read, strict=True):
            self.transformer.check(image, f"image {quoted(self.images.names[index])}")
        return [read[place] for place in places.tolist()]
