"""Checks of settings and shapes that several layers share. They raise GraphError."""

from collections.abc import Sequence
from math import prod

from google.protobuf.message import Message

from siamese_proto.errors import GraphError, quoted
from siamese_proto.graph.ir import Shape
from siamese_proto.layers.base import canonical_axis
from siamese_proto.proto import schema


def refuse_in_place(message: schema.LayerParameter) -> None:
    """Refuse a top that is also the bottom, for a layer that cannot work in place in Caffe."""
    for index, (bottom, top) in enumerate(zip(message.bottom, message.top, strict=False)):
        if bottom == top:
            raise GraphError(
                f"{message.type} cannot work in place, but bottom and top are both {quoted(top)}: rename the top",
                field=f"top[{index}]",
            )


def read_axis(settings: schema.SliceParameter | schema.ConcatParameter, message: str, old_name: str) -> tuple[int, str]:
    """Return the axis of a Slice or Concat, and the field that sets it: `axis` or its old name, not both."""
    old = int(getattr(settings, old_name))
    if not settings.HasField(old_name):
        return settings.axis, f"{message}.axis"
    if settings.HasField("axis"):
        raise GraphError(
            f"both axis {settings.axis} and {old_name} {old} are set: they mean the same; keep axis only",
            field=f"{message}.{old_name}",
        )
    return old, f"{message}.{old_name}"


def check_same_shapes(bottoms: Sequence[Shape]) -> None:
    """Require that all bottoms have the same shape."""
    for index, bottom in enumerate(bottoms):
        if bottom != bottoms[0]:
            raise GraphError(
                f"bottom {index} has shape {bottom}, but bottom 0 has {bottoms[0]}: they must be the same",
                field=f"bottom[{index}]",
            )


def check_batches(bottoms: Sequence[Shape], *indices: int) -> None:
    """Require that these bottoms have as many rows as bottom 0 (loss_layer.cpp)."""
    for index in indices:
        if not bottoms[0] or not bottoms[index] or bottoms[0][0] != bottoms[index][0]:
            raise GraphError(
                f"bottom 0 has shape {bottoms[0]} and bottom {index} has shape {bottoms[index]}: "
                "their first dimensions, the batch, must be equal",
                field=f"bottom[{index}]",
            )


def check_labels_fit(scores: Shape, labels: Shape, axis: int, field: str) -> int:
    """Require one label for each score vector along `axis`; returns the axis counted from 0."""
    axis = canonical_axis(axis, scores, field)
    count = prod(scores[:axis]) * prod(scores[axis + 1 :])
    if prod(labels) != count:
        raise GraphError(
            f"bottom 0 of shape {scores} with the classes on axis {axis} needs {count} labels, "
            f"but bottom 1 of shape {labels} holds {prod(labels)}",
            field="bottom[1]",
        )
    return axis


def check_positive(settings: Message, name: str, message: str) -> None:
    """Require a count of at least 1; `message` is the name of the field that holds `settings`."""
    if getattr(settings, name) < 1:
        fault = f"{name} 0 must be at least 1" if settings.HasField(name) else f"{name} is missing; give a number"
        raise GraphError(fault, field=f"{message}.{name}")


def check_equal_features(bottoms: Sequence[Shape]) -> None:
    """Require that every bottom has as many values per row as bottom 0."""
    first = prod(bottoms[0][1:])
    for index, bottom in enumerate(bottoms):
        if prod(bottom[1:]) != first:
            raise GraphError(
                f"bottom 0 of shape {bottoms[0]} has {first} features and bottom {index} of shape {bottom} has "
                f"{prod(bottom[1:])}: they must be equal",
                field=f"bottom[{index}]",
            )
