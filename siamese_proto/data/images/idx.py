"""IDX files, the format of MNIST: a magic number, the sizes, and the bytes; plain or compressed with gzip."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from siamese_proto.errors import DataError, quoted

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_UNSIGNED_BYTE = 0x08


def read_images(path: str) -> NDArray[numpy.uint8]:
    """(N, H, W) grey images; DataError where the file is no image file or its length is not what it says."""
    return _read(path, 3, "images")


def read_labels(path: str) -> NDArray[numpy.uint8]:
    """(N,) classes."""
    return _read(path, 1, "labels")


def read_labeled(images: str, labels: str) -> tuple[NDArray[numpy.uint8], NDArray[numpy.uint8]]:
    """Images (N, H, W) and their classes (N,) from two files, which must have as many entries."""
    pixels, classes = read_images(images), read_labels(labels)
    if len(pixels) != len(classes):
        raise DataError(
            f"{quoted(images)} has {len(pixels)} images, but {quoted(labels)} has {len(classes)} labels;"
            " give the two files of one set"
        )
    return pixels, classes


def _read(path: str, axes: int, content: str) -> NDArray[numpy.uint8]:
    import numpy

    data = _bytes_of(path)
    magic = _UNSIGNED_BYTE << 8 | axes
    header = 4 + 4 * axes
    found = int.from_bytes(data[:4], "big")
    if found == magic and len(data) < header:
        raise DataError(f"{quoted(path)} is cut short in its header, after {len(data)} bytes; fetch it again")
    if found != magic:
        other = {_UNSIGNED_BYTE << 8 | 3: "; it holds images", _UNSIGNED_BYTE << 8 | 1: "; it holds labels"}
        raise DataError(
            f"{quoted(path)} is not an IDX file of {content}: it begins with the number {found}, not {magic}"
            f"{other.get(found, '')}"
        )
    shape = struct.unpack(f">{axes}I", data[4:header])
    if len(data) - header != math.prod(shape):
        form = " x ".join(map(str, shape))
        raise DataError(
            f"{quoted(path)} holds {len(data) - header} bytes after its header, but says {form} ({content});"
            " it is cut short or damaged: fetch it again"
        )
    if not all(shape[1:]):
        form = " x ".join(map(str, shape[1:]))
        raise DataError(f"{quoted(path)} says that its images are {form} (height x width); give a file that has some")
    return numpy.frombuffer(data, numpy.uint8, offset=header).reshape(shape)


def _bytes_of(path: str) -> bytes:
    try:
        data = Path(path).read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except FileNotFoundError as error:
        raise DataError(f"{quoted(path)} does not exist; check the path") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{quoted(path)} is not a whole gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{quoted(path)} cannot be read: {error.strerror}; check the path") from error
