"""Upgrade V1 layers (`layers { type: CONVOLUTION blobs_lr: 1 param: "w" }`) to the current format."""

import re

from siamese_proto.proto import schema
from siamese_proto.proto.parsed import Draft, Source

# All other names of the V1 enum become types by capitalizing their words: HINGE_LOSS is HingeLoss. (Im2col as well.)
_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")
_DATA_PARAMS = {
    schema.V1LayerParameter.DATA: "data_param",
    schema.V1LayerParameter.IMAGE_DATA: "image_data_param",
    schema.V1LayerParameter.WINDOW_DATA: "window_data_param",
}
_SPEC_FIELDS = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}
_SPEC_PATH = re.compile(rf"({'|'.join(_SPEC_FIELDS)})\[(\d+)\]")


def modern_type(old: str) -> str:
    """Return the type for a name of the V1 enum: `INNER_PRODUCT` is `InnerProduct`."""
    return _TYPES.get(old, "".join(word.capitalize() for word in old.split("_")))


def move_transform_fields(draft: Draft) -> None:
    """Move scale, mean_file, crop_size and mirror of V1 data layers to transform_param.

    As in Caffe, if one data layer has such a field, all data layers get both messages, perhaps empty. The fields still
    exist in data_param of the current format, where Caffe ignores them.
    """
    layers = draft.message.layers
    data = {i: getattr(layer, _DATA_PARAMS[layer.type]) for i, layer in enumerate(layers) if layer.type in _DATA_PARAMS}
    if any(message.HasField(field) for message in data.values() for field in _TRANSFORM_FIELDS):
        for i in data:
            draft.old_layers[i] = _move_transform_fields(layers[i], draft.old_layers[i])
        draft.notes.append("transform fields of data layers moved to transform_param")


def _move_transform_fields(layer: schema.V1LayerParameter, source: Source) -> Source:
    name = _DATA_PARAMS[layer.type]
    data = getattr(layer, name)
    data.SetInParent()
    layer.transform_param.SetInParent()
    renames: dict[str, str] = {}
    for field in _TRANSFORM_FIELDS:
        if data.HasField(field):
            setattr(layer.transform_param, field, getattr(data, field))
            data.ClearField(field)
            renames[f"{name}.{field}"] = f"transform_param.{field}"
    return source.renamed(lambda path: renames.get(path, path))


def upgrade_v1(draft: Draft) -> None:
    """Upgrade every V1 layer."""
    old = draft.message.layers
    if not old:
        return
    for message, source in zip(old, draft.old_layers, strict=True):
        layer = draft.message.layer.add()
        _upgrade_layer(message, layer)
        draft.layers.append(_take_unknown_type(layer, source.renamed(_new_path)))
    draft.notes.append(f"layers upgraded from V1 to the current format ({len(old)})")
    draft.message.ClearField("layers")
    draft.old_layers = []


def _upgrade_layer(old: schema.V1LayerParameter, new: schema.LayerParameter) -> None:
    if old.HasField("type"):
        new.type = modern_type(schema.V1LayerParameter.LayerType.Name(old.type))
    for old_name, new_name in _SPEC_FIELDS.items():
        for i, value in enumerate(getattr(old, old_name)):
            while len(new.param) <= i:
                new.param.add()
            setattr(new.param[i], new_name, value)  # both enums of share_mode have the same numbers
    for field, value in old.ListFields():
        name = field.name
        if name in ("type", "layer") or name in _SPEC_FIELDS:
            continue
        if isinstance(getattr(new, name), str):
            setattr(new, name, value)
        elif hasattr(value, "CopyFrom"):
            getattr(new, name).CopyFrom(value)
        else:
            getattr(new, name).extend(value)


def _new_path(path: str) -> str:
    spec = _SPEC_PATH.fullmatch(path)
    return f"param[{spec[2]}].{_SPEC_FIELDS[spec[1]]}" if spec else path


def _take_unknown_type(layer: schema.LayerParameter, source: Source) -> Source:
    """Keep a type that is not in the enum: it is one of a fork, or one of the current format in an old file."""
    for entry in source.unknown:
        path, raw = entry
        if path == "" and raw.name == "type" and isinstance(raw.value, str) and not raw.fault:
            layer.type = raw.value
            rest = tuple(other for other in source.unknown if other is not entry)
            return Source(source.location, {**source.fields, "type": raw.location}, rest)
    return source
