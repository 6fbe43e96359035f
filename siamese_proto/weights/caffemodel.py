"""Binary `.caffemodel` files: NetParameter messages whose layers have blobs (net.cpp: ToProto, CopyTrainedLayersFrom).

A file is mapped, not read. A walk over its fields takes the blobs out; what is left, a few kilobytes of settings, goes
through protobuf and the upgrade of old dialects, with a small placeholder for every blob.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

from google.protobuf.message import DecodeError, Message

from siamese_proto.errors import NetError
from siamese_proto.files import replacing
from siamese_proto.proto import schema
from siamese_proto.proto.upgrade.net import upgrade_net
from siamese_proto.weights.blobs import Array, blob_pieces, length_of, read_blob
from siamese_proto.weights.files import Path, problem
from siamese_proto.weights.stored import StoredLayer, StoredWeights
from siamese_proto.weights.wire import LENGTH, VARINT, Bytes, WireError, delimited, fields, tag, varint

_LAYER, _LAYERS, _BLOBS = 100, 2, 7
_NET, _MODERN, _OLD, _OLDEST = "net", "layer", "layers", "layers.layer"
_INSIDE = {(_NET, _LAYER): _MODERN, (_NET, _LAYERS): _OLD, (_OLD, 1): _OLDEST}  # where blobs are to be looked for
_BLOB_FIELD = {_MODERN: _BLOBS, _OLD: 6, _OLDEST: 50}
_MOST_SETTINGS = 64 << 20  # bytes in a file besides its blobs; the largest nets have less than one megabyte

Span = tuple[int, int]


def map_file(path: Path) -> Bytes:
    """The bytes of a file, read when they are looked at. Raises WeightsError where it cannot be opened or is empty."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise problem(os.fspath(path), "the file is empty")
            # Private pages that may be written to: torch warns about arrays that may not.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise problem(os.fspath(path), f"cannot be read: {error.strerror or error}") from error


def read_caffemodel(path: Path) -> StoredWeights:
    """The layers of a binary file in any dialect, V0 to today's; files over 2 GiB too.

    The arrays are views of the mapped file where its numbers are packed, as Caffe has always written them. Raises
    WeightsError, with file, layer and blob.
    """
    file = os.fspath(path)
    data = map_file(path)
    spans: list[Span] = []
    try:
        settings = _settings(data, 0, len(data), _NET, spans)
        message = schema.NetParameter.FromString(settings)
        for old in message.layers:
            _make_text(old)
        message.input[:] = [as_text(name) for name in message.input]
        message = upgrade_net(message)
    except (WireError, DecodeError, UnicodeDecodeError) as error:  # the last by the pure-Python protobuf
        what = _what_else(data) or f"is {'' if spans else 'no caffemodel, or is '}damaged or cut off ({error})"
        raise problem(file, what) from error
    except NetError as error:
        raise problem(file, str(error)) from error
    if not message.layer:
        raise problem(file, _what_else(data) or "holds no layers")
    layers = [_layer(file, data, layer, spans) for layer in message.layer]
    return StoredWeights(file, tuple(layers), as_text(message.name))


def _settings(data: Bytes, start: int, end: int, place: str, spans: list[Span]) -> bytes:
    """The message without its blobs: each becomes a blob whose `num` is the index of its bytes in `spans`."""
    pieces: list[bytes] = []
    size = 0
    for field in fields(data, start, end):
        inner = _INSIDE.get((place, field.number))
        if field.kind == LENGTH and field.number == _BLOB_FIELD.get(place):
            pieces.append(delimited(field.number, schema.BlobProto(num=len(spans)).SerializeToString()))
            spans.append((field.value, field.end))
        elif field.kind == LENGTH and inner is not None:
            pieces.append(delimited(field.number, _settings(data, field.value, field.end, inner, spans)))
        else:
            if field.end - field.start > _MOST_SETTINGS:
                raise WireError(f"field {field.number} at byte {field.start} has {field.end - field.start} bytes")
            pieces.append(data[field.start : field.end])
        size += len(pieces[-1])
        if size > _MOST_SETTINGS:
            raise WireError(f"more than {_MOST_SETTINGS >> 20} MiB that are no blobs")
    return b"".join(pieces)


def _layer(file: str, data: Bytes, message: schema.LayerParameter, spans: Sequence[Span]) -> StoredLayer:
    name = as_text(message.name)
    blobs: list[Array] = []
    for index, placeholder in enumerate(message.blobs):
        try:
            blobs.append(read_blob(data, *spans[placeholder.num]))
        except WireError as error:
            raise problem(file, f"blob {index}: {error}", layer=name) from error
    message.ClearField("blobs")
    return StoredLayer(
        name=name,
        type=as_text(message.type),
        bottoms=tuple(map(as_text, message.bottom)),
        tops=tuple(map(as_text, message.top)),
        blobs=tuple(blobs),
        message=message,
    )


def as_text(name: str | bytes) -> str:
    """A name from a file: protobuf leaves those that are not UTF-8 as bytes."""
    return name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")


def _make_text(message: Message) -> None:
    """Make text of all that should be: the upgrade of a layer copies its names, and bytes cannot be set."""
    for field, value in message.ListFields():
        if isinstance(value, Message):
            _make_text(value)
        elif field.message_type is not None:
            for inner in value:
                _make_text(inner)
        elif field.type == field.TYPE_STRING and isinstance(value, bytes | str):
            setattr(message, field.name, as_text(value))
        elif field.type == field.TYPE_STRING:
            value[:] = [as_text(each) for each in value]


def _what_else(data: Bytes) -> str:
    """What a file that is no caffemodel seems to be; empty where there is no telling."""
    try:
        found = {(field.number, field.kind) for field in fields(data, 0, len(data))}
    except WireError:
        return ""
    if {(1, VARINT), (3, LENGTH)} <= found:
        return "is no caffemodel but looks like a solver state; give the .caffemodel that was saved with it"
    if (5, LENGTH) in found:
        return "is no caffemodel but looks like a single blob, such as a mean image"
    return ""


def write_caffemodel(path: Path, stored: StoredWeights) -> None:
    """Write the layers in Caffe's layout, with their diffs where they have some; replaces `path` at once.

    Nothing but the settings is copied in memory. Caffe itself reads no file over 2 GiB.
    """
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(schema.NetParameter(name=stored.name).SerializeToString())
        for layer in stored.layers:
            pieces = _layer_pieces(layer, os.fspath(path))
            file.write(tag(_LAYER, LENGTH) + varint(length_of(pieces)))
            file.writelines(pieces)


def _layer_pieces(layer: StoredLayer, file: str) -> list[bytes | memoryview]:
    """The bytes of a LayerParameter, fields in the order of their numbers, as Caffe has them."""
    message = layer.message or schema.LayerParameter(
        name=layer.name, type=layer.type, bottom=layer.bottoms, top=layer.tops
    )
    settings = message.SerializeToString()
    ends = [field.end for field in fields(settings, 0, len(settings)) if field.number < _BLOBS]
    middle = max(ends, default=0)
    blobs: list[bytes | memoryview] = []
    for index, values in enumerate(layer.all_blobs(file)):
        pieces = blob_pieces(values, layer.diffs[index] if layer.diffs else None)
        blobs += [tag(_BLOBS, LENGTH) + varint(length_of(pieces)), *pieces]
    return [settings[:middle], *blobs, settings[middle:]]
