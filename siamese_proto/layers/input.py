"""Blobs that the caller gives."""

from __future__ import annotations

from collections.abc import Sequence

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Arity, Shape, SourceMissingError, exactly
from siamese_proto.layers.base import Layer, layer
from siamese_proto.proto import schema


@layer("Input")
class Input(Layer):
    """Its tops are given by whoever runs the net: `net(data=x)`.

    () -> one blob a top, of the shape given for it (one shape serves all tops).
    Caffe: input_layer.cpp
    """

    is_source = True
    bottoms = exactly(0)
    tops = Arity(1, None)

    def read(self, message: schema.LayerParameter) -> None:
        shapes = message.input_param.shape
        self.shapes: tuple[Shape, ...] = tuple(tuple(shape.dim) for shape in shapes)
        if len(shapes) not in (0, 1, self.top_count):
            raise GraphError(
                f"{len(shapes)} shapes are given for {self.top_count} tops: give one shape, or one for each top",
                field=f"input_param.shape[{min(len(shapes) - 1, self.top_count)}]",
            )
        for index, shape in enumerate(self.shapes):
            if any(size < 0 for size in shape):
                raise GraphError(f"shape {shape} has a negative dimension", field=f"input_param.shape[{index}]")

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if not self.shapes:
            raise SourceMissingError("no shape is given: write input_param { shape { dim: ... } }", field="input_param")
        return self.shapes * self.top_count if len(self.shapes) == 1 else self.shapes
