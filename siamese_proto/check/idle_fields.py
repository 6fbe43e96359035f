"""Find fields of a layer that have no effect."""

from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.message import Message

from siamese_proto.errors import did_you_mean, quoted
from siamese_proto.graph.ir import LayerLike
from siamese_proto.proto import schema

# The fields of each type of filler (include/caffe/filler.hpp).
FILLER_READS = {
    "constant": ("value",),
    "uniform": ("min", "max"),
    "gaussian": ("mean", "std", "sparse"),
    "positive_unitball": (),
    "xavier": ("variance_norm",),
    "msra": ("variance_norm",),
    "bilinear": (),
}
# Fields of any message that choose between implementations of the same result, with their defaults.
WAYS_TO_COMPUTE = {"engine": 0, "force_nd_im2col": False}


class Idle(NamedTuple):
    """A field without effect: its path in the layer, and the reason. `refused`: Caffe does not accept it at all."""

    path: str
    text: str
    refused: bool = False


def idle_fields(layer: LayerLike, message: schema.LayerParameter) -> Iterator[Idle]:
    """Yield every field of the layer's message that has no effect, in the order of the schema."""
    for field, value in message.ListFields():
        if not field.name.endswith("_param") or not isinstance(value, Message):
            continue
        if field.name in layer.reads:
            yield from _idle_settings(field.name, value)
        else:
            read = f"which reads {' and '.join(layer.reads)}" if layer.reads else "which has no settings"
            yield Idle(field.name, f"{field.name} has no effect on a layer of type {layer.type}, {read}")
    if message.loss_param.HasField("normalize") and message.loss_param.HasField("normalization"):
        yield Idle("loss_param.normalize", "loss_param.normalize has no effect: normalization is set too")
    for index, propagates in enumerate(message.propagate_down):
        if propagates and index in layer.labels:
            path = f"propagate_down[{index}]"
            yield Idle(path, f"propagate_down true has no effect: {layer.type} has no gradient for bottom {index}")
    for path in layer.unused_fields():
        head, _, name = path.partition("[")[0].rpartition(".")
        movable = "transform_param" in layer.reads and head != "transform_param"
        transform_fields = schema.TransformationParameter.DESCRIPTOR.fields_by_name
        hint = "write it in transform_param" if movable and name in transform_fields else "remove it"
        yield Idle(path, f"{head}.{name} has no effect; {hint}")


def _idle_settings(path: str, settings: Message) -> Iterator[Idle]:
    """Yield the same for one message of settings that the layer reads."""
    for field, value in settings.ListFields():
        here = f"{path}.{field.name}"
        if field.name in WAYS_TO_COMPUTE and value != WAYS_TO_COMPUTE[field.name]:
            yield Idle(here, f"{here} has no effect: torch chooses the implementation")
        elif field.name == "bias_filler" and not getattr(settings, "bias_term", True):
            yield Idle(here, f"{here} has no effect: bias_term is false")
        elif isinstance(value, schema.FillerParameter):
            yield from _idle_filler(here, value)
        elif field.message_type is schema.FillerParameter.DESCRIPTOR:
            for index, filler in enumerate(value):
                yield from _idle_filler(f"{here}[{index}]", filler)


def _idle_filler(path: str, filler: schema.FillerParameter) -> Iterator[Idle]:
    if filler.type not in FILLER_READS:
        hint = did_you_mean(filler.type, FILLER_READS)
        yield Idle(f"{path}.type", f"unknown filler type {quoted(filler.type)}{hint}", refused=True)
        return
    for field, _ in filler.ListFields():
        if field.name != "type" and field.name not in FILLER_READS[filler.type]:
            refused = field.name == "sparse" and filler.sparse != -1  # -1 is the default, written out
            verb = "is not valid for" if refused else "has no effect on"
            text = f"{path}.{field.name} {verb} a filler of type {quoted(filler.type)}"
            yield Idle(f"{path}.{field.name}", text, refused)
