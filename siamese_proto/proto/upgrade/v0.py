"""Upgrade V0 layers (`layers { layer { name: "c" type: "conv" kernelsize: 5 } bottom: "x" top: "y" }`) to V1."""

import dataclasses
import io
import re
from collections.abc import Iterable
from typing import cast

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from siamese_proto.errors import Location, ParseError, quoted
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import Draft, RawField, Source

# V0 types and their names in the V1 enum.
_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

# Fields of the net that V0 has. Caffe drops the others; we note that.
_NET_FIELDS = {"name", "layers", "input", "input_dim", "force_backward"}

_CONV, _INNER, _POOL = {"conv": "convolution_param"}, {"innerproduct": "inner_product_param"}, {"pool": "pooling_param"}
_LRN, _DROPOUT, _CONCAT = {"lrn": "lrn_param"}, {"dropout": "dropout_param"}, {"concat": "concat_param"}
_DATA, _IMAGES, _WINDOWS = {"data": "data_param"}, {"images": "image_data_param"}, {"window_data": "window_data_param"}
_SOURCES = {**_DATA, **_IMAGES, **_WINDOWS, "hdf5_data": "hdf5_data_param"}
_ANY = dict.fromkeys(_TYPES, "transform_param")

# V0 field: its current name, and for each type that has it the message that holds it.
_FIELDS: dict[str, tuple[str, dict[str, str]]] = {
    "num_output": ("num_output", {**_CONV, **_INNER}),
    "biasterm": ("bias_term", {**_CONV, **_INNER}),
    "weight_filler": ("weight_filler", {**_CONV, **_INNER}),
    "bias_filler": ("bias_filler", {**_CONV, **_INNER}),
    "pad": ("pad", {**_CONV, **_POOL}),
    "kernelsize": ("kernel_size", {**_CONV, **_POOL}),
    "stride": ("stride", {**_CONV, **_POOL}),
    "group": ("group", _CONV),
    "pool": ("pool", _POOL),
    "dropout_ratio": ("dropout_ratio", _DROPOUT),
    "local_size": ("local_size", _LRN),
    "alpha": ("alpha", _LRN),
    "beta": ("beta", _LRN),
    "k": ("k", _LRN),
    "concat_dim": ("concat_dim", _CONCAT),
    "source": ("source", {**_SOURCES, "infogain_loss": "infogain_loss_param"}),
    "batchsize": ("batch_size", _SOURCES),
    "rand_skip": ("rand_skip", {**_DATA, **_IMAGES}),
    "shuffle_images": ("shuffle", _IMAGES),
    "new_height": ("new_height", _IMAGES),
    "new_width": ("new_width", _IMAGES),
    "det_fg_threshold": ("fg_threshold", _WINDOWS),
    "det_bg_threshold": ("bg_threshold", _WINDOWS),
    "det_fg_fraction": ("fg_fraction", _WINDOWS),
    "det_context_pad": ("context_pad", _WINDOWS),
    "det_crop_mode": ("crop_mode", _WINDOWS),
    "scale": ("scale", _ANY),
    "meanfile": ("mean_file", _ANY),
    "cropsize": ("crop_size", _ANY),
    "mirror": ("mirror", _ANY),
    "hdf5_output_param": ("hdf5_output_param", {"hdf5_output": ""}),
}
_COMMON = {"name", "blobs", "blobs_lr", "weight_decay"}  # fields of every type
_STEP = re.compile(r"layer\.(\w+)(.*)")


def upgrade_v0(draft: Draft) -> None:
    """Upgrade V0 layers to V1 layers, in place.

    Padding layers become the `pad` of the convolution or pooling that reads them. A field that the type of a layer does
    not have is dropped with a note.

    Raises:
        ParseError: No layer can take over the padding.
    """
    old = draft.message.layers
    if not any(layer.HasField("layer") for layer in old):
        return
    _fold_padding(draft)
    layers = [schema.V1LayerParameter() for _ in old]
    for i, (message, layer) in enumerate(zip(old, layers, strict=True)):
        if message.HasField("layer"):
            draft.old_layers[i] = _upgrade_layer(message, layer, draft.old_layers[i], draft.notes)
        else:
            layer.CopyFrom(message)
    draft.message.ClearField("layers")
    draft.message.layers.extend(layers)
    for field, _ in draft.message.ListFields():
        if field.name not in _NET_FIELDS:
            draft.message.ClearField(field.name)
            draft.source = draft.source.without(field.name)
            draft.notes.append(f"{field.name} dropped: V0 nets do not have this field")
    draft.notes.append(f"layers upgraded from V0 to V1 ({len(layers)})")


def _fold_padding(draft: Draft) -> None:
    """Remove padding layers. The layers that read them get their `pad` and their bottom."""
    layers = list(draft.message.layers)
    maker: dict[str, int] = {}
    for i, message in enumerate(layers):
        for j, bottom in enumerate(message.bottom):
            padding = layers[maker[bottom]] if bottom in maker else None
            if padding is None or padding.layer.type != "padding":
                continue
            _check_padding(padding, message, draft.old_layers[i])
            message.layer.pad = padding.layer.pad
            message.bottom[j] = padding.bottom[0]
            places = dict(draft.old_layers[i].fields)
            places["layer.pad"] = draft.old_layers[maker[bottom]].find("layer.pad")
            draft.old_layers[i] = dataclasses.replace(draft.old_layers[i], fields=places)
        maker.update(dict.fromkeys(message.top, i))
    others = [i for i, message in enumerate(layers) if message.layer.type != "padding"]
    if len(others) < len(layers):
        draft.notes.append(f"padding layers merged into the layers that read them ({len(layers) - len(others)})")
    draft.old_layers = [draft.old_layers[i] for i in others]
    for i in sorted(set(range(len(layers))) - set(others), reverse=True):
        del draft.message.layers[i]


def _check_padding(padding: schema.V1LayerParameter, reader: schema.V1LayerParameter, source: Source) -> None:
    name = quoted(padding.layer.name)
    problem = ""
    if reader.layer.type not in ("conv", "pool"):
        problem = f"reads the padding layer {name}, but only conv and pool layers have padding"
    elif len(reader.bottom) != 1:
        problem = f"reads the padding layer {name}: expected one bottom, got {len(reader.bottom)}"
    elif len(padding.bottom) != 1 or len(padding.top) != 1:
        problem = f"reads the padding layer {name}, which needs one bottom and one top"
    if problem:
        raise ParseError(problem, location=source.location, layer=reader.layer.name)


def _upgrade_layer(
    message: schema.V1LayerParameter, layer: schema.V1LayerParameter, source: Source, notes: list[str]
) -> Source:
    old = message.layer
    layer.bottom.extend(message.bottom)
    layer.top.extend(message.top)
    if old.HasField("type") and old.type not in _TYPES:
        return _keep_custom_layer(old, layer, source)
    if old.HasField("type"):
        layer.type = cast(schema.V1LayerParameter.LayerType, getattr(schema.V1LayerParameter, _TYPES[old.type]))
    dropped = [field.name for field, _ in message.ListFields() if field.name not in ("bottom", "top", "layer")]
    for field, value in old.ListFields():
        target = _target(field.name, old.type)
        if target:
            _put(layer, target, value)
        elif field.name != "type":
            dropped.append(field.name)
    for name in dropped:
        paths = (f"layer.{name}", name, f"{name}[0]")
        where = next((f"{source.fields[path]}: " for path in paths if path in source.fields), "")
        reason = f"V0 layers of type {quoted(old.type)} do not have this field"
        notes.append(f"{where}layer {quoted(old.name)}: {quoted(name)} dropped: {reason}")
    moved = _moved(source, old.type)
    for path, _ in moved.unknown:  # an unknown value may be all there was in a message
        if path:
            getattr(layer, path.partition(".")[0]).SetInParent()
    return moved


def _keep_custom_layer(old: schema.V0LayerParameter, layer: schema.V1LayerParameter, source: Source) -> Source:
    """Keep a layer whose type is not Caffe's. Its settings go to a message named after the type, `of_a_fork_param`."""
    settings: list[RawField] = []
    for field, value in old.ListFields():
        if field.name in _COMMON:
            _put(layer, field.name, value)
        elif field.name != "type":
            settings.extend(_raw(field, value, source.find(f"layer.{field.name}")))
    settings += [raw for path, raw in source.unknown if path == "layer"]
    unknown = [raw for path, raw in source.unknown if path == ""]
    place = source.find("layer.type")
    unknown.append(RawField("type", old.type, place, is_string=True))
    if settings:
        unknown.append(RawField(f"{old.type}_param", tuple(settings), place))
    moved = _moved(dataclasses.replace(source, unknown=()), old.type)
    return dataclasses.replace(moved, unknown=tuple(("", raw) for raw in unknown))


def _raw(field: FieldDescriptor, value: object, place: Location) -> list[RawField]:
    """Return a field of a message as if it were written in a file."""
    if isinstance(value, Message):
        inside = [raw for below, one in value.ListFields() for raw in _raw(below, one, place)]
        return [RawField(field.name, tuple(inside), place)]
    if isinstance(value, str):
        return [RawField(field.name, value, place, is_string=True)]
    if hasattr(value, "extend"):
        return [raw for one in cast(Iterable[object], value) for raw in _raw(field, one, place)]
    out = io.StringIO()
    text_format.PrintFieldValue(field, value, out)
    return [RawField(field.name, out.getvalue(), place)]


def _target(name: str, layer_type: str) -> str | None:
    """Return the path of the V0 field `name` in a V1 layer, None if the type of the layer does not have it."""
    if name in _COMMON:
        return name
    new_name, suits = _FIELDS.get(name, ("", {}))
    if layer_type not in suits:
        return None
    return f"{suits[layer_type]}.{new_name}".lstrip(".")


def _put(layer: schema.V1LayerParameter, path: str, value: object) -> None:
    *around, name = path.split(".")
    parent: Message = layer
    for step in around:
        parent = getattr(parent, step)
    present = getattr(parent, name)
    if isinstance(value, Message):
        present.CopyFrom(value)
    elif not hasattr(present, "extend") or isinstance(present, str | bytes):
        setattr(parent, name, value)  # PoolMethod has the same numbers in both messages
    elif hasattr(value, "extend"):
        present.extend(value)
    else:
        present.append(value)


def _moved(source: Source, layer_type: str) -> Source:
    """Return the locations of a V0 layer under the paths of its V1 layer."""

    def rename(path: str) -> str | None:
        if path in ("layer", ""):
            return ""
        step = _STEP.fullmatch(path)
        if not step:
            return path if path.startswith(("bottom[", "top[")) else None
        name, below = step.groups()
        target = "type" if name == "type" else _target(name, layer_type)
        if target is None:
            return None
        repeated = target in ("convolution_param.pad", "convolution_param.kernel_size", "convolution_param.stride")
        return target + ("[0]" if repeated else "") + below

    def moved_raw(path: str, raw: RawField) -> tuple[str, RawField]:
        target = rename(f"layer.{raw.name}") if path == "layer" else None
        if target is None:
            return rename(path) or "", raw
        parent, _, name = target.rpartition(".")
        return parent, dataclasses.replace(raw, name=name)

    fields = {new: place for old, place in source.fields.items() if (new := rename(old))}
    return Source(source.location, fields, tuple(moved_raw(path, raw) for path, raw in source.unknown))
