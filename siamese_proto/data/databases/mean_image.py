"""The mean image of a database, which `mean_file` subtracts from every record."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from siamese_proto.data.databases.database import no_records
from siamese_proto.data.databases.datum import Decoding, key_text, pixels_of
from siamese_proto.data.databases.listing import datums
from siamese_proto.data.databases.store import Database
from siamese_proto.errors import DataError, quoted
from siamese_proto.files import write_atomically
from siamese_proto.proto import schema

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from siamese_proto.data.databases.datum import Pixels
    from siamese_proto.data.transform import Floats

_AT_ONCE = 256  # records added up together


def mean_image(database: Database, progress: Callable[[int], None] = lambda done: None) -> Floats:
    """Return the mean of all records, (C, H, W), float32. Sums in float64; Caffe's float32 sums lose digits.

    Raises DataError with the key of a record that cannot be used or whose size differs from the first.
    """
    import numpy

    total: NDArray[numpy.float64] | None = None
    waiting: list[Pixels] = []
    count = 0
    for key, datum in datums(database):
        pixels = pixels_of(key, datum, Decoding())
        if total is None:
            total = numpy.zeros(pixels.shape)
        if pixels.shape != total.shape:
            sizes = (" x ".join(map(str, shape)) for shape in (pixels.shape, total.shape))
            raise DataError(
                f"record {key_text(key)} of database {quoted(database.path)} has size {next(sizes)}, but the first one"
                f" has {next(sizes)} (channels x height x width); a mean needs one size"
            )
        waiting.append(pixels)
        count += 1
        if len(waiting) == _AT_ONCE:
            total += numpy.sum(waiting, 0, numpy.float64)
            waiting.clear()
            progress(count)
    if total is None:
        raise no_records(database)
    total += numpy.sum(waiting, 0, numpy.float64) if waiting else 0
    return (total / count).astype(numpy.float32)


def read_npy(path: str) -> Floats:
    """Read a mean image from a file of `numpy.save`, (C, H, W) or (1, C, H, W). Raises DataError."""
    import numpy

    try:
        mean = numpy.load(path, allow_pickle=False)
    except Exception as error:  # for damaged files, NumPy raises exceptions of any type
        raise DataError(f"NumPy file {quoted(path)} cannot be read: {error}") from error
    shape = mean.shape
    mean = mean[0] if mean.ndim == 4 and shape[0] == 1 else mean
    if mean.ndim != 3 or mean.dtype.kind not in "fiu" or 0 in shape:
        raise DataError(
            f"NumPy file {quoted(path)} has shape {shape} and type {mean.dtype}; a mean image has numbers of shape"
            " (channels, height, width)"
        )
    image: Floats = mean.astype(numpy.float32)
    return image


def write_mean(path: str | os.PathLike[str], mean: Floats) -> None:
    """Write a mean image, (C, H, W), as the BlobProto that Caffe reads. The write is atomic."""
    channels, height, width = mean.shape
    blob = schema.BlobProto(num=1, channels=channels, height=height, width=width, data=mean.ravel().tolist())
    write_atomically(path, blob.SerializeToString())
