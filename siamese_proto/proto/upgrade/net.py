"""Nets of older dialects to today's, in the order and by the rules of Caffe's upgrade_proto.cpp.

Oldest first: V0 (`layers { layer { type: "conv" } }`), transform fields inside data_param, V1 (`layers { type: LRN }`),
`input` fields, BatchNorm layers with three `param`. Every layer keeps the place it was written at, and the paths of its
fields follow the fields.
"""

from __future__ import annotations

from siamese_proto.errors import Location, NetError, ParseError, quoted
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedNet, Source
from siamese_proto.proto.upgrade.draft import Draft
from siamese_proto.proto.upgrade.v0 import upgrade_v0
from siamese_proto.proto.upgrade.v1 import move_transform_fields, upgrade_v1


def upgrade_read_net(message: schema.NetParameter, source: Source, *, notes: tuple[str, ...] = ()) -> ParsedNet:
    """Bring a net that was read from text to today's dialect; the message is changed.

    ParseError where Caffe refuses the net too: `layer` mixed with `layers`, inputs without extents, padding of the V0
    dialect that nothing can take over.
    """
    source, layers = source.split("layer")
    source, old_layers = source.split("layers")
    draft = Draft(message, source, list(layers), list(old_layers), list(notes))
    _upgrade(draft)
    return ParsedNet(message, tuple(draft.layers), draft.source, tuple(draft.notes))


def upgrade_net(message: schema.NetParameter) -> schema.NetParameter:
    """Bring a net from a binary file (.caffemodel) to today's dialect, weights included.

    The message itself is changed and returned, because weights are large. Raises ParseError, without a place, as
    `upgrade_read_net` does.
    """
    nowhere = Source(Location("", 0))
    draft = Draft(message, nowhere, [nowhere] * len(message.layer), [nowhere] * len(message.layers))
    try:
        _upgrade(draft)
    except NetError as error:
        error.location = None
        raise
    return message


def _upgrade(draft: Draft) -> None:
    _refuse_mixture(draft)
    upgrade_v0(draft)
    move_transform_fields(draft)
    upgrade_v1(draft)
    _upgrade_inputs(draft)
    _upgrade_batch_norm(draft)


def _refuse_mixture(draft: Draft) -> None:
    if draft.layers and draft.old_layers:
        first, second = sorted((draft.layers[0].location, draft.old_layers[0].location), key=lambda place: place.line)
        names = ("layer", "layers") if first is draft.layers[0].location else ("layers", "layer")
        raise ParseError(
            f"'{names[1]}' beside '{names[0]}' (line {first.line}): the dialects cannot be mixed; "
            'write every layer as layer { type: "..." }',
            location=second,
        )


def _upgrade_inputs(draft: Draft) -> None:
    net = draft.message
    if not net.input:
        return
    if net.input_shape or net.input_dim:
        layer = schema.LayerParameter(name="input", type="Input", top=net.input)
        fields = {f"top[{i}]": draft.source.find(f"input[{i}]") for i in range(len(net.input))}
        _take_shapes(draft, layer, fields)
        net.layer.insert(0, layer)
        unknown = draft.source.renamed(_shape_path).unknown
        moved = tuple((path, raw) for path, raw in unknown if path.startswith("input_param."))
        draft.layers.insert(0, Source(draft.source.find("input[0]"), fields, moved))
        draft.notes.append("input fields replaced by a layer 'input' of type Input")
    else:
        draft.notes.append("input fields dropped: they come without extents")
    for name in ("input", "input_shape", "input_dim"):
        net.ClearField(name)
    draft.source = draft.source.without("input", "input_shape", "input_dim")


def _shape_path(path: str) -> str:
    return "input_param." + path.removeprefix("input_") if path.startswith("input_shape[") else path


def _take_shapes(draft: Draft, layer: schema.LayerParameter, fields: dict[str, Location]) -> None:
    """Shapes from `input_shape`, or four `input_dim` an input where there is none; more than are needed are ignored."""
    net = draft.message
    count, wanted = len(net.input), "input_shape" if net.input_shape else "input_dim"
    given = len(net.input_shape) if net.input_shape else len(net.input_dim) // 4
    if given < count:
        needed = f"{count} input_shape, one" if net.input_shape else f"{4 * count} input_dim, four"
        raise ParseError(
            f"expected {needed} for each input, found {len(getattr(net, wanted))}",
            location=draft.source.find(f"input[{given}]"),
            field=f"input[{given}]",
        )
    for i in range(count):
        shape = layer.input_param.shape.add()
        if net.input_shape:
            shape.CopyFrom(net.input_shape[i])
            sources = [f"input_shape[{i}].dim[{j}]" for j in range(len(shape.dim))]
            fields[f"input_param.shape[{i}]"] = draft.source.find(f"input_shape[{i}]")
        else:
            shape.dim.extend(net.input_dim[4 * i : 4 * i + 4])
            sources = [f"input_dim[{4 * i + j}]" for j in range(4)]
        fields.update({f"input_param.shape[{i}].dim[{j}]": draft.source.find(at) for j, at in enumerate(sources)})


def _upgrade_batch_norm(draft: Draft) -> None:
    """Statistics are not learned; files from the time when Caffe did not see to that itself state three `param`."""
    for layer in draft.message.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            if any(param.lr_mult != 0 for param in layer.param):  # what is not learned does not decay either
                draft.notes.append(
                    f"layer {quoted(layer.name)}: lr_mult and decay_mult of BatchNorm statistics set to 0"
                )
            for param in layer.param:
                param.lr_mult = 0
                param.decay_mult = 0
