"""BlobProto: one array in a binary file of Caffe (blob.cpp: FromProto, ToProto)."""

import math

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from siamese_proto.proto import schema
from siamese_proto.weights.wire import LENGTH, Bytes, Field, WireError, delimited, fields, varint

Array = NDArray[np.floating]
_FLOAT: np.dtype[np.floating] = np.dtype("<f4")
_DOUBLE: np.dtype[np.floating] = np.dtype("<f8")
_DATA, _DIFF, _SHAPE, _DOUBLE_DATA, _DOUBLE_DIFF = 5, 6, 7, 8, 9
_LEGACY_SHAPE = ("num", "channels", "height", "width")
_MAX_NUMBERS = 1 << 40  # a shape with a 0 in it holds none, but must still be possible in numpy
_MAX_AXES = 32  # as in Caffe (blob.hpp: kMaxBlobAxes)


def read_blob(data: Bytes, start: int, end: int) -> Array:
    """Return the array of the BlobProto between `start` and `end`: a view if its numbers are one packed field.

    Returns:
        float32, or float64 if the file holds doubles. A blob with the legacy sizes has four axes.

    Raises:
        WireError: The bytes are no blob, or the number of values does not match the shape.
    """
    packed: dict[int, Field] = {}
    settings: list[bytes] = []
    for field in fields(data, start, end):
        if field.number in (_DATA, _DOUBLE_DATA):
            if field.kind != LENGTH or field.number in packed:  # numbers one by one, or in parts: protobuf joins them
                packed, settings = {}, [data[start:end]]
                break
            packed[field.number] = field
        elif field.number not in (_DIFF, _DOUBLE_DIFF):
            settings.append(data[field.start : field.end])
    try:
        message = schema.BlobProto.FromString(b"".join(settings))
    except DecodeError:
        raise WireError("its bytes are not a blob") from None
    shape = _shape(message)
    is_double = _DOUBLE_DATA in packed or bool(message.double_data)
    kind = _DOUBLE if is_double else _FLOAT
    values = packed.get(_DOUBLE_DATA) or packed.get(_DATA)
    if values is None:
        array: Array = np.array(message.double_data if is_double else message.data, kind)
    else:
        length = values.end - values.value
        if length % kind.itemsize:
            raise WireError(f"holds {length} bytes of numbers, which is not a multiple of {kind.itemsize}")
        array = np.frombuffer(data, kind, length // kind.itemsize, values.value)
    if math.prod(shape) != array.size:
        raise WireError(f"its shape {shape} has {math.prod(shape)} numbers, but it holds {array.size}")
    return array.reshape(shape)


def _shape(message: schema.BlobProto) -> tuple[int, ...]:
    is_legacy = any(message.HasField(name) for name in _LEGACY_SHAPE)
    shape = tuple(getattr(message, name) for name in _LEGACY_SHAPE) if is_legacy else tuple(message.shape.dim)
    if len(shape) > _MAX_AXES:
        raise WireError(f"its shape has {len(shape)} axes; Caffe allows {_MAX_AXES}")
    if any(size < 0 for size in shape):
        raise WireError(f"its shape {shape} has a negative size")
    if math.prod(max(size, 1) for size in shape) > _MAX_NUMBERS:
        raise WireError(f"its shape {shape} is larger than any file")
    return shape


def blob_pieces(values: Array, diff: Array | None = None) -> list[bytes | memoryview]:
    """Return the bytes of a BlobProto as Caffe writes it, in pieces; contiguous numbers are not copied.

    float64 is written to double_data, other types become float32.
    """
    is_double = values.dtype == np.float64
    dims = b"".join(varint(size) for size in values.shape)
    shape = delimited(_SHAPE, delimited(1, [dims])) if values.shape else []
    data = _packed(_DOUBLE_DATA if is_double else _DATA, values)
    diffs = [] if diff is None else _packed(_DOUBLE_DIFF if is_double else _DIFF, diff)
    return [*shape, *data, *diffs] if is_double else [*data, *diffs, *shape]


def _packed(number: int, values: Array) -> list[bytes | memoryview]:
    kind = _DOUBLE if number in (_DOUBLE_DATA, _DOUBLE_DIFF) else _FLOAT
    if not values.size:
        return []
    return delimited(number, [np.ascontiguousarray(values, kind).reshape(-1).view(np.uint8).data])
