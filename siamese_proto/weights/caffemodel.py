"""Binary `.caffemodel` files: NetParameter messages whose layers have blobs (net.cpp: ToProto, CopyTrainedLayersFrom).

A file is mapped, not read. A walk over its fields takes the blobs out. The rest, a few kilobytes of settings, is parsed
by protobuf and upgraded from old formats, with a small placeholder for every blob.
"""

import os
from collections.abc import Sequence

from google.protobuf.message import DecodeError, Message

from siamese_proto.errors import NetError
from siamese_proto.proto import schema
from siamese_proto.proto.upgrade.net import upgrade_net
from siamese_proto.weights.blobs import Array, blob_pieces, read_blob
from siamese_proto.weights.files import Path, map_file, new_file, weights_error
from siamese_proto.weights.stored import StoredLayer, StoredWeights
from siamese_proto.weights.wire import LENGTH, VARINT, Bytes, WireError, delimited, fields

_LAYER, _LAYERS, _BLOBS = 100, 2, 7
_NET, _CURRENT, _V1, _V0 = "net", "layer", "layers", "layers.layer"
_MESSAGES = {(_NET, _LAYER): _CURRENT, (_NET, _LAYERS): _V1, (_V1, 1): _V0}  # the messages that may hold blobs
_BLOB_FIELD = {_CURRENT: _BLOBS, _V1: 6, _V0: 50}
_MAX_SETTINGS = 64 << 20  # bytes in a file besides its blobs; the largest nets have less than one megabyte

Span = tuple[int, int]


def read_caffemodel(path: Path) -> StoredWeights:
    """Read the layers of a binary file in any format, from V0 to the current one; files over 2 GiB too.

    The arrays are views of the mapped file if its numbers are packed, as Caffe writes them.

    Raises:
        WeightsError: With file, layer and blob.
    """
    file = os.fspath(path)
    data = map_file(path)
    spans: list[Span] = []
    try:
        settings = _settings(data, 0, len(data), _NET, spans)
        message = schema.NetParameter.FromString(settings)
        for layer in message.layers:
            _decode_names(layer)
        message.input[:] = [as_text(name) for name in message.input]
        message = upgrade_net(message)
    except (WireError, DecodeError, UnicodeDecodeError) as error:  # the last by the pure-Python protobuf
        fault = f"is {'' if spans else 'not a caffemodel, or is '}damaged or cut off ({error})"
        raise weights_error(file, _other_kind(data) or fault) from error
    except NetError as error:
        raise weights_error(file, str(error)) from error
    if not message.layer:
        raise weights_error(file, _other_kind(data) or "holds no layers")
    layers = tuple(_layer(file, data, layer, spans) for layer in message.layer)
    return StoredWeights(file, layers, as_text(message.name))


def _settings(data: Bytes, start: int, end: int, place: str, spans: list[Span]) -> bytes:
    """The message without its blobs: each becomes a blob whose `num` is the index of its bytes in `spans`."""
    pieces: list[bytes | memoryview] = []
    size = 0
    for field in fields(data, start, end):
        inner = _MESSAGES.get((place, field.number))
        if field.kind == LENGTH and field.number == _BLOB_FIELD.get(place):
            new = delimited(field.number, [schema.BlobProto(num=len(spans)).SerializeToString()])
            spans.append((field.value, field.end))
        elif field.kind == LENGTH and inner is not None:
            new = delimited(field.number, [_settings(data, field.value, field.end, inner, spans)])
        else:
            if field.end - field.start > _MAX_SETTINGS:
                raise WireError(f"field {field.number} at byte {field.start} has {field.end - field.start} bytes")
            new = [data[field.start : field.end]]
        pieces += new
        size += sum(map(len, new))
        if size > _MAX_SETTINGS:
            raise WireError(f"more than {_MAX_SETTINGS >> 20} MiB that are not blobs")
    return b"".join(pieces)


def _layer(file: str, data: Bytes, message: schema.LayerParameter, spans: Sequence[Span]) -> StoredLayer:
    name = as_text(message.name)
    blobs: list[Array] = []
    for index, placeholder in enumerate(message.blobs):
        try:
            blobs.append(read_blob(data, *spans[placeholder.num]))
        except WireError as error:
            raise weights_error(file, f"blob {index}: {error}", layer=name) from error
    message.ClearField("blobs")
    bottoms, tops = (tuple(map(as_text, names)) for names in (message.bottom, message.top))
    return StoredLayer(name, as_text(message.type), bottoms, tops, tuple(blobs), message=message)


def as_text(name: str | bytes) -> str:
    """Return a name from a file as text: protobuf leaves names that are not UTF-8 as bytes."""
    return name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")


def _decode_names(message: Message) -> None:
    """Make all text fields str: the upgrade of a layer copies its names, and fields cannot be set to bytes."""
    for field, value in message.ListFields():
        if isinstance(value, Message):
            _decode_names(value)
        elif field.message_type is not None:
            for inner in value:
                _decode_names(inner)
        elif field.type == field.TYPE_STRING and isinstance(value, bytes | str):
            setattr(message, field.name, as_text(value))
        elif field.type == field.TYPE_STRING:
            value[:] = [as_text(each) for each in value]


def _other_kind(data: Bytes) -> str:
    """Describe a file that is not a caffemodel; empty if it is unknown."""
    try:
        numbers = {(field.number, field.kind) for field in fields(data, 0, len(data))}
    except WireError:
        return ""
    if {(1, VARINT), (3, LENGTH)} <= numbers:
        return "is not a caffemodel but looks like a solver state; give the .caffemodel that was saved with it"
    if (5, LENGTH) in numbers:
        return "is not a caffemodel but looks like a single blob, such as a mean image"
    return ""


def write_caffemodel(path: Path, stored: StoredWeights) -> None:
    """Write the layers in Caffe's layout, with their diffs if they have some; replaces `path` atomically.

    Only the settings are copied in memory. Caffe itself cannot read files over 2 GiB.
    """
    with new_file(path) as file:
        file.write(schema.NetParameter(name=stored.name).SerializeToString())
        for layer in stored.layers:
            file.writelines(delimited(_LAYER, _layer_pieces(layer, os.fspath(path))))


def _layer_pieces(layer: StoredLayer, file: str) -> list[bytes | memoryview]:
    """The bytes of a LayerParameter, with its fields in the order of their numbers, as in Caffe."""
    message = layer.message or schema.LayerParameter(
        name=layer.name, type=layer.type, bottom=layer.bottoms, top=layer.tops
    )
    settings = message.SerializeToString()
    middle = max((field.end for field in fields(settings, 0, len(settings)) if field.number < _BLOBS), default=0)
    blobs: list[bytes | memoryview] = []
    for index, values in enumerate(layer.all_blobs(file)):
        blobs += delimited(_BLOBS, blob_pieces(values, layer.diffs[index] if layer.diffs else None))
    return [settings[:middle], *blobs, settings[middle:]]
