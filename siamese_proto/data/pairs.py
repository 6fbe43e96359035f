"""Pairs of images for siamese nets: which two, whether they are alike, and the records made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from siamese_proto.data.database import Backend, create_database
from siamese_proto.errors import DataError
from siamese_proto.proto import schema

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

Draw = Literal["balanced", "uniform"]
_AT_ONCE = 1000  # records written together


@dataclass(frozen=True)
class Pairs:
    """Numbers of the first and the second image of each pair, and whether they are of one class; (N,) each."""

    first: NDArray[numpy.intp]
    second: NDArray[numpy.intp]
    same: NDArray[numpy.bool_]


def draw_pairs(
    labels: NDArray[numpy.uint8], count: int, *, draw: Draw = "balanced", same_fraction: float = 0.5, seed: int = 0
) -> Pairs:
    """Draw `count` pairs; the same seed draws the same pairs.

    `uniform` draws both images from all, as Caffe's maker of MNIST pairs does, so that one pair in ten is alike where
    there are ten classes. `balanced` draws just `same_fraction` of the pairs from one class, never an image with
    itself, and the others from two classes. Raises DataError where the labels do not allow it.
    """
    import numpy

    generator = numpy.random.default_rng(seed)
    if not len(labels):
        raise DataError("there are no images to draw pairs from; give a file that has some")
    if draw == "uniform":
        first, second = generator.integers(len(labels), size=(2, count))
        return Pairs(first, second, labels[first] == labels[second])
    same = numpy.zeros(count, numpy.bool_)
    same[: round(same_fraction * count)] = True
    generator.shuffle(same)
    return _balanced(labels, same, generator)


def _balanced(labels: NDArray[numpy.uint8], same: NDArray[numpy.bool_], generator: numpy.random.Generator) -> Pairs:
    import numpy

    order = numpy.argsort(labels, kind="stable")  # images by class
    _, of_class, sizes = numpy.unique(labels, return_inverse=True, return_counts=True)
    begins = numpy.cumsum(sizes) - sizes
    if same.any() and sizes.max() < 2:
        raise DataError("no class has two images, so no pair can be alike; give more images, or --same-fraction 0")
    if not same.all() and len(sizes) < 2:
        raise DataError("all images are of one class, so no pair can differ; give more classes, or --same-fraction 1")
    # Where a class has one image, that image cannot begin a pair that is alike.
    places = numpy.arange(len(labels))
    partnered = places[sizes[of_class[order]] > 1]
    place = numpy.where(same, generator.choice(partnered if len(partnered) else places, same.size), 0)
    place = numpy.where(same, place, generator.integers(len(labels), size=same.size))
    begin, size = begins[of_class[order[place]]], sizes[of_class[order[place]]]
    # Alike: one of the size - 1 others of the class. Different: one of those outside the class's run of places.
    drawn = generator.integers(numpy.where(same, numpy.maximum(size - 1, 1), len(labels) - numpy.where(same, 0, size)))
    alike = begin + drawn + (drawn >= place - begin)
    different = drawn + numpy.where(drawn >= begin, size, 0)
    return Pairs(order[place], order[numpy.where(same, alike, different)], same)


def write_pairs(
    path: str,
    backend: Backend,
    images: NDArray[numpy.uint8],
    pairs: Pairs,
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda written: None,
) -> None:
    """Make a database of pairs of (N, H, W) or (N, C, H, W) images.

    A record is a Datum of both images, stacked on channels, with label 1 where they are alike and 0 where not, under
    the number of the pair in eight digits. `progress` is told how many records are written.
    """
    stacked = images[:, None] if images.ndim == 3 else images
    count = len(pairs.first)
    with create_database(path, backend, overwrite=overwrite) as writer:
        for begin in range(0, count, _AT_ONCE):
            writer.put(_records(stacked, pairs, range(begin, min(begin + _AT_ONCE, count))))
            progress(min(begin + _AT_ONCE, count))


def _records(images: NDArray[numpy.uint8], pairs: Pairs, numbers: range) -> Sequence[tuple[bytes, bytes]]:
    import numpy

    part = slice(numbers.start, numbers.stop)
    both = numpy.concatenate([images[pairs.first[part]], images[pairs.second[part]]], axis=1)  # (n, 2C, H, W)
    _, channels, height, width = both.shape
    return [
        (
            b"%08d" % number,
            schema.Datum(
                channels=channels, height=height, width=width, data=pixels.tobytes(), label=int(same)
            ).SerializeToString(),
        )
        for number, pixels, same in zip(numbers, both, pairs.same[part], strict=True)
    ]
