"""Upgrade nets of older formats, in the order and by the rules of Caffe's upgrade_proto.cpp.

The formats, oldest first: V0 (`layers { layer { type: "conv" } }`), transform fields inside data_param, V1 (`layers {
type: LRN }`), `input` fields, and BatchNorm layers with three `param`. Every layer and field keeps its location.
"""

from siamese_proto.errors import Location, NetError, ParseError, quoted
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import Draft, ParsedNet, Source
from siamese_proto.proto.upgrade.v0 import upgrade_v0
from siamese_proto.proto.upgrade.v1 import move_transform_fields, upgrade_v1


def upgrade_read_net(message: schema.NetParameter, source: Source, *, notes: tuple[str, ...] = ()) -> ParsedNet:
    """Upgrade a net that was read from text, in place.

    Raises:
        ParseError: Caffe refuses the net too: it mixes `layer` with `layers`, has inputs without shapes, or has padding
            layers of the V0 format that no layer can use.
    """
    source, layers = source.split("layer")
    source, old_layers = source.split("layers")
    draft = Draft(message, source, list(layers), list(old_layers), list(notes))
    _upgrade(draft)
    return ParsedNet(message, tuple(draft.layers), draft.source, tuple(draft.notes))


def upgrade_net(message: schema.NetParameter) -> schema.NetParameter:
    """Upgrade a net from a binary file (.caffemodel), with its weights, in place, and return it.

    Raises:
        ParseError: As in `upgrade_read_net`, without a location.
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
    if draft.layers and draft.old_layers:
        both = (("layer", draft.layers[0].location), ("layers", draft.old_layers[0].location))
        (first, first_location), (second, location) = sorted(both, key=lambda entry: entry[1].line)
        text = f"{quoted(second)} and {quoted(first)} (line {first_location.line}) cannot be mixed in a net"
        raise ParseError(f'{text}; write every layer as layer {{ type: "..." }}', location=location)
    upgrade_v0(draft)
    move_transform_fields(draft)
    upgrade_v1(draft)
    _upgrade_inputs(draft)
    _upgrade_batch_norm(draft)


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
        draft.notes.append("input fields replaced by the layer 'input' of type Input")
    else:
        draft.notes.append("input fields dropped: they have no shapes")
    for name in ("input", "input_shape", "input_dim"):
        net.ClearField(name)
    draft.source = draft.source.without("input", "input_shape", "input_dim")


def _shape_path(path: str) -> str:
    return "input_param." + path.removeprefix("input_") if path.startswith("input_shape[") else path


def _take_shapes(draft: Draft, layer: schema.LayerParameter, fields: dict[str, Location]) -> None:
    """Copy `input_shape`, or four `input_dim` for each input if there are no shapes. Superfluous ones are ignored."""
    net = draft.message
    count = len(net.input)
    name, per_input = ("input_shape", 1) if net.input_shape else ("input_dim", 4)
    available = len(getattr(net, name))
    if available < per_input * count:
        at = f"input[{available // per_input}]"
        each = {1: "one", 4: "four"}[per_input]
        text = f"expected {per_input * count} {name}, {each} for each input, got {available}"
        raise ParseError(text, location=draft.source.find(at), field=at)
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
    """Set the multipliers of BatchNorm statistics to 0; old files have three `param` that say so."""
    for layer in draft.message.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            if any(param.lr_mult != 0 for param in layer.param):  # with lr_mult 0, decay_mult has no effect
                draft.notes.append(
                    f"layer {quoted(layer.name)}: lr_mult and decay_mult of BatchNorm statistics set to 0"
                )
            for param in layer.param:
                param.lr_mult = 0
                param.decay_mult = 0
