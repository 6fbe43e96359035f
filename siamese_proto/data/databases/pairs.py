"""Databases of pairs and triplets: draw images, and write their records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from siamese_proto.data.databases.database import Backend, create_database
from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.data.sampling import PairSampler, TripletSampler
from siamese_proto.errors import DataError, quoted
from siamese_proto.proto import schema

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from siamese_proto.data.databases.datum import Pixels

    Labels = NDArray[Any]  # whole numbers
    Reader = Callable[[NDArray[numpy.int64]], Pixels]  # indices of images (n,) to images (n, C, H, W)

Draw = Literal["balanced", "uniform"]
_AT_ONCE = 1000  # records written together,
_BYTES_AT_ONCE = 1 << 25  # or as many as take about this much


@dataclass(frozen=True)
class Pairs:
    """Indices of the first and second image of each pair, and whether both are of the same class; (N,) each."""

    first: NDArray[numpy.int64]
    second: NDArray[numpy.int64]
    same: NDArray[numpy.bool_]


def draw_pairs(
    labels: Labels, count: int, *, draw: Draw = "balanced", same_fraction: float = 0.5, seed: int = 0
) -> Pairs:
    """Draw `count` pairs; the same seed draws the same pairs.

    `uniform` draws both images from all images, as Caffe's tool for MNIST pairs does; with ten classes, one pair in ten
    is of the same class. `balanced` draws exactly `same_fraction` of the pairs from one class, never an image with
    itself, and the others from two classes, as PairData layers do. Raises DataError if the labels do not allow it.
    """
    import numpy

    if draw == "balanced":
        sampler = PairSampler(labels, same_fraction=same_fraction, seed=seed, count=count)
        pairs, same = sampler.draw(numpy.arange(count))
        return Pairs(pairs[:, 0], pairs[:, 1], same == 1)
    if not len(labels):
        raise DataError("there are no images to draw from; give some")
    first, second = numpy.random.default_rng(seed).integers(len(labels), size=(2, count))
    return Pairs(first, second, labels[first] == labels[second])


def draw_triplets(labels: Labels, count: int, *, seed: int = 0) -> NDArray[numpy.int64]:
    """Draw indices of anchor, positive and negative for `count` triplets, (count, 3), as PairData layers do.

    Raises DataError if the labels do not allow it.
    """
    import numpy

    return TripletSampler(labels, seed=seed).draw(numpy.arange(count))[0]


def write_pairs(
    path: str,
    backend: Backend,
    images: LabeledImages | NDArray[numpy.uint8],
    pairs: Pairs,
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda written: None,
) -> None:
    """Create a database of pairs of images; `images` may be an array (N, H, W) or (N, C, H, W).

    A record is a Datum of both images, stacked on channels, with label 1 for the same class and 0 for different ones.
    Its key is the number of the pair in eight digits. `progress` is called with the number of records written.
    """
    import numpy

    both = numpy.stack([pairs.first, pairs.second], axis=1)
    write_tuples(path, backend, images, both, pairs.same, overwrite=overwrite, progress=progress)


def write_tuples(
    path: str,
    backend: Backend,
    images: LabeledImages | NDArray[numpy.uint8],
    tuples: NDArray[numpy.int64],
    labels: Labels,
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda written: None,
) -> None:
    """Create a database of any tuples, (n, k) indices of images, with labels (n,). See `write_pairs`.

    Raises DataError for an image that cannot be read, or whose size differs from the first.
    """
    count, width = tuples.shape
    with ThreadPoolExecutor() as threads, create_database(path, backend, overwrite=overwrite) as writer:
        read = _reader(images, threads)
        at_once = max(1, min(_AT_ONCE, _BYTES_AT_ONCE // (width * read(tuples[:1, 0]).nbytes)))
        for begin in range(0, count, at_once):
            end = min(begin + at_once, count)
            chosen = read(tuples[begin:end].ravel())  # (n k, C, H, W)
            stacked = chosen.reshape(end - begin, -1, *chosen.shape[2:])
            writer.put(_records(stacked, labels[begin:end], begin))
            progress(end)


def _reader(images: LabeledImages | NDArray[numpy.uint8], threads: ThreadPoolExecutor) -> Reader:
    if not isinstance(images, LabeledImages):
        stacked = images[:, None] if images.ndim == 3 else images
        return lambda indices: stacked[indices]
    if images.in_memory:
        return lambda indices: _stacked(images.images(indices), images, indices)
    return lambda indices: _decoded(images, indices, threads)


def _decoded(images: LabeledImages, indices: NDArray[numpy.int64], threads: ThreadPoolExecutor) -> Pixels:
    import numpy

    once, places = numpy.unique(indices, return_inverse=True)
    return _stacked(list(threads.map(images.image, once.tolist())), images, once)[places]


def _stacked(read: Pixels | Sequence[Pixels], images: LabeledImages, indices: NDArray[numpy.int64]) -> Pixels:
    import numpy

    for index, image in zip(indices.tolist(), read, strict=True):
        if image.shape != images.shape:
            size, first = (" x ".join(map(str, shape)) for shape in (image.shape, images.shape))
            raise DataError(
                f"image {quoted(images.names[index])} has size {size}, but the first one has {first} (channels x "
                "height x width); all must have the same size; resize them"
            )
    return numpy.asarray(read)


def _records(images: Pixels, labels: Labels, first: int) -> Sequence[tuple[bytes, bytes]]:
    _, channels, height, width = images.shape
    records = []
    for number, (pixels, label) in enumerate(zip(images, labels.tolist(), strict=True), first):
        datum = schema.Datum(channels=channels, height=height, width=width, label=int(label))
        if pixels.dtype == "uint8":
            datum.data = pixels.tobytes()
        else:
            datum.float_data.extend(pixels.ravel().tolist())
        records.append((b"%08d" % number, datum.SerializeToString()))
    return records
