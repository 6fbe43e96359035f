"""BlobProto: one array in a binary file of Caffe (blob.cpp: FromProto, ToProto)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from siamese_proto.proto import schema
from siamese_proto.weights.wire import (
    LENGTH,
    VARINT,
    Bytes,
    Field,
    WireError,
    delimited,
    fields,
    read_varint,
    tag,
    varint,
)

Array = NDArray[np.floating]
Kind = np.dtype[np.floating]
_FLOAT: Kind = np.dtype("<f4")
_DOUBLE: Kind = np.dtype("<f8")
_LEGACY = range(1, 5)  # num, channels, height, width
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
_MOST_NUMBERS = 1 << 40  # a shape with a 0 in it holds none, and still must be one that numpy can have
_MOST_AXES = 32  # as in Caffe (blob.hpp: kMaxBlobAxes)


def read_blob(data: Bytes, start: int, end: int) -> Array:
    """The array of the BlobProto between `start` and `end`: a view where its numbers are packed in one piece.

    float32, or float64 where the file holds doubles. A blob of the old four sizes has four axes. Raises WireError where
    the bytes are no blob or hold another count of numbers than the shape says.
    """
    found: dict[int, Field] = {}
    for field in fields(data, start, end):
        if field.kind != (VARINT if field.number in _LEGACY else LENGTH) or field.number in found:
            return _unusual(data[start:end])
        found[field.number] = field
    values = found.get(_DOUBLE_DATA)
    kind = _DOUBLE if values is not None else _FLOAT
    values = values or found.get(_DATA)
    length = values.end - values.value if values else 0
    shape = _shape(data, found)
    if length % kind.itemsize:
        raise WireError(f"holds {length} bytes of numbers, which is no multiple of {kind.itemsize}")
    _check_count(shape, length // kind.itemsize)
    if values is None:
        return np.zeros(shape, kind)
    array: Array = np.frombuffer(data, kind, length // kind.itemsize, values.value)
    return array.reshape(shape)


def _shape(data: Bytes, found: dict[int, Field]) -> tuple[int, ...]:
    if any(number in found for number in _LEGACY):
        sizes = [
            read_varint(data, found[number].value, found[number].end)[0] if number in found else 0 for number in _LEGACY
        ]
        return _checked_axes(size - (1 << 64) if size >> 63 else size for size in sizes)
    if _SHAPE not in found:
        return ()
    written = data[found[_SHAPE].value : found[_SHAPE].end]
    try:
        return _checked_axes(schema.BlobShape.FromString(written).dim)
    except DecodeError:
        raise WireError("its shape cannot be read") from None


def _unusual(written: bytes) -> Array:
    """The array of a blob whose numbers are not packed, or come in pieces: protobuf puts them together."""
    try:
        message = schema.BlobProto.FromString(written)
    except DecodeError:
        raise WireError("its bytes are no blob") from None
    legacy = ("num", "channels", "height", "width")
    if any(message.HasField(name) for name in legacy):
        shape = _checked_axes(getattr(message, name) for name in legacy)
    else:
        shape = _checked_axes(message.shape.dim)
    double = bool(message.double_data)
    numbers = message.double_data if double else message.data
    _check_count(shape, len(numbers))
    array: Array = np.array(numbers, _DOUBLE if double else _FLOAT)
    return array.reshape(shape)


def _checked_axes(sizes: Iterable[int]) -> tuple[int, ...]:
    shape = tuple(sizes)
    if len(shape) > _MOST_AXES:
        raise WireError(f"its shape has {len(shape)} axes; Caffe allows {_MOST_AXES}")
    if any(size < 0 for size in shape):
        raise WireError(f"its shape {shape} has a negative size")
    if math.prod(max(size, 1) for size in shape) > _MOST_NUMBERS:
        raise WireError(f"its shape {shape} is larger than any file")
    return shape


def _check_count(shape: tuple[int, ...], count: int) -> None:
    if math.prod(shape) != count:
        raise WireError(f"its shape {shape} means {math.prod(shape)} numbers, but it holds {count}")


def blob_pieces(values: Array, diff: Array | None = None) -> list[bytes | memoryview]:
    """The bytes of a BlobProto as Caffe writes it, in pieces; the numbers are not copied where they lie in order.

    float64 goes to double_data, all else becomes float32.
    """
    double = values.dtype == np.float64
    dims = b"".join(varint(size) for size in values.shape)
    shape = [delimited(_SHAPE, delimited(1, dims))] if values.shape else []
    data = list(_packed(_DOUBLE_DATA if double else _DATA, values, _DOUBLE if double else _FLOAT))
    diffs = [] if diff is None else list(_packed(9 if double else 6, diff, _DOUBLE if double else _FLOAT))
    return [*shape, *data, *diffs] if double else [*data, *diffs, *shape]


def _packed(number: int, values: Array, kind: Kind) -> Iterator[bytes | memoryview]:
    if values.size:
        yield tag(number, LENGTH) + varint(values.size * kind.itemsize)
        yield np.ascontiguousarray(values, kind).reshape(-1).view(np.uint8).data


def length_of(pieces: Iterable[bytes | memoryview]) -> int:
    """How many bytes the pieces are together."""
    return sum(len(piece) for piece in pieces)
